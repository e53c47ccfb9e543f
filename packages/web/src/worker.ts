// The worker: a host for the page that started it, or, shared, one for each page.
import { Host } from './host.js';
import { messagePort, ownPort } from './platform.js';

const shared = globalThis as unknown as { onconnect?: unknown };
if ('onconnect' in globalThis) {
  shared.onconnect = (event: MessageEvent) => void new Host(messagePort(event.ports[0]!));
} else {
  new Host(await ownPort());
}
