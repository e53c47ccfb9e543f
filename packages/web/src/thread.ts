// A helper thread: joins the instance that shares its memory, and serves it until the worker ends.
import * as glue from 'firecrest-glue-threads';

import { ownPort } from './platform.js';

const port = await ownPort();
port.onMessage(({ module, memory }: { module: WebAssembly.Module; memory: WebAssembly.Memory }) => {
  glue.initSync({ module, memory });
  glue.run_worker(() => port.postMessage('ready'));
});
