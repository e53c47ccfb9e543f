// A web server for tests and the demo: files, with range requests, and what a test wants to go wrong.
import { createReadStream, existsSync, readFileSync, statSync } from 'node:fs';
import { createServer } from 'node:http';
import { extname, join, normalize } from 'node:path';

const TYPES = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.mjs': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.wasm': 'application/wasm',
  '.webmanifest': 'application/manifest+json',
};

/**
 * Serves `routes`, from a path's beginning to a folder or to a file. With `isolated` pages may have threads.
 * `faults` maps a path to a function of the request's number and range that returns how many bytes of the answer are
 * sent before the connection is cut, or a status to answer with.
 */
export async function serve({ routes, isolated = true, port = 0, faults = {} }) {
  const requests = [];
  const server = createServer((request, response) => {
    const path = normalize(decodeURIComponent(new URL(request.url, 'http://localhost').pathname));
    const [prefix, target] = Object.entries(routes).find(([prefix]) => path.startsWith(prefix)) ?? [];
    let file = target && (statSync(target).isDirectory() ? join(target, path.slice(prefix.length)) : target);
    if (file && existsSync(file) && statSync(file).isDirectory()) file = join(file, 'index.html');
    if (isolated) {
      response.setHeader('Cross-Origin-Opener-Policy', 'same-origin');
      response.setHeader('Cross-Origin-Embedder-Policy', 'require-corp');
    }
    if (!file || !existsSync(file)) {
      response.writeHead(404).end();
      return;
    }
    const { size, mtimeMs } = statSync(file);
    const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '');
    requests.push({ path, range: request.headers.range });
    const fault = faults[path]?.(requests.filter((other) => other.path === path).length, request.headers.range);
    if (fault?.status) {
      response.writeHead(fault.status).end();
      return;
    }
    const start = range && !fault?.noRanges ? Number(range[1]) : 0;
    const end = range && !fault?.noRanges && range[2] ? Math.min(Number(range[2]), size - 1) : size - 1;
    const headers = {
      'Content-Type': TYPES[extname(file)] ?? 'application/octet-stream',
      'Content-Length': end - start + 1,
      'Cache-Control': 'no-store',
      ETag: `"${size}-${mtimeMs}"`,
    };
    if (range && !fault?.noRanges) headers['Content-Range'] = `bytes ${start}-${end}/${size}`;
    response.writeHead(range && !fault?.noRanges ? 206 : 200, headers);
    if (fault?.cut !== undefined) {
      // Sent for certain before the connection goes.
      response.write(readFileSync(file).subarray(start, start + fault.cut), () => setTimeout(() => response.destroy(), 50));
    } else {
      createReadStream(file, { start, end }).pipe(response);
    }
  });
  await new Promise((resolve) => server.listen(port, 'localhost', resolve));
  return {
    url: `http://localhost:${server.address().port}`,
    requests,
    close: () => {
      server.closeAllConnections();
      server.close();
    },
  };
}
