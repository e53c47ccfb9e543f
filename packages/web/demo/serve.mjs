// Serves the demo page at http://localhost:8080.
import { join } from 'node:path';

import { serve } from '../test/serve.mjs';

const here = import.meta.dirname;
const port = Number(process.env.PORT ?? 8080);
const { url } = await serve({ routes: { '/firecrest/': join(here, '../dist'), '/': here }, port });
console.log(`Firecrest: ${url}/`);
