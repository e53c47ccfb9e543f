import type { Port } from './protocol.js';

/** Whether this is Node. */
export const isNode = typeof process !== 'undefined' && process.versions?.node !== undefined && !('window' in globalThis);

// Bundlers for browsers must not follow these.
const node = <T>(name: string): Promise<T> => import(/* webpackIgnore: true */ /* @vite-ignore */ `node:${name}`) as Promise<T>;
const workerThreads = () => node<typeof import('node:worker_threads')>('worker_threads');
const fs = () => node<typeof import('node:fs/promises')>('fs/promises');

/** Starts a worker of this package. */
export async function startWorker(url: URL, name: string): Promise<Port> {
  if (isNode) {
    const worker = new (await workerThreads()).Worker(url, { name });
    worker.unref();
    return {
      postMessage: (message, transfer) => {
        worker.ref();
        worker.postMessage(message, transfer as never);
      },
      onMessage: (handler) => void worker.on('message', handler as (message: unknown) => void),
      onError: (handler) => void worker.on('error', handler),
      close: () => void worker.terminate(),
    };
  }
  const worker = new Worker(url, { type: 'module', name });
  return {
    postMessage: (message, transfer) => worker.postMessage(message, transfer ?? []),
    onMessage: (handler) => worker.addEventListener('message', (event) => handler(event.data as never)),
    onError: (handler) =>
      worker.addEventListener('error', (event) => handler(new Error(event.message || 'the worker did not start'))),
    close: () => worker.terminate(),
  };
}

/** A port of the web's kind. */
export function messagePort(port: MessagePort): Port {
  return {
    postMessage: (message, transfer) => port.postMessage(message, transfer ?? []),
    onMessage: (handler) => {
      port.onmessage = (event) => handler(event.data as never);
    },
    onError: () => undefined,
    close: () => port.close(),
  };
}

/** The port of the worker that this code runs in. */
export async function ownPort(): Promise<Port> {
  if (isNode) {
    const port = (await workerThreads()).parentPort!;
    return {
      postMessage: (message, transfer) => port.postMessage(message, transfer as never),
      onMessage: (handler) => void port.on('message', handler as (message: unknown) => void),
      onError: () => undefined,
      close: () => port.close(),
    };
  }
  const scope = globalThis as unknown as DedicatedWorkerGlobalScope;
  return {
    postMessage: (message, transfer) => scope.postMessage(message, transfer ?? []),
    onMessage: (handler) => scope.addEventListener('message', (event) => handler(event.data as never)),
    onError: () => undefined,
    close: () => scope.close(),
  };
}

/** Compiles a module, streamed where there is something to stream. */
export async function compile(url: string | URL): Promise<WebAssembly.Module> {
  if (isNode && new URL(url).protocol === 'file:') {
    return WebAssembly.compile(new Uint8Array(await (await fs()).readFile(new URL(url))));
  }
  const response = await fetch(url);
  if (!response.ok) throw new TypeError(`${url}: ${response.status} ${response.statusText}`);
  // Servers that do not know the type of .wasm files are common.
  if (response.headers.get('content-type')?.startsWith('application/wasm')) return WebAssembly.compileStreaming(response);
  return WebAssembly.compile(await response.arrayBuffer());
}

/** Opens a file by its path, in Node: its length, and a function that reads a part of it. */
export async function openPath(path: string) {
  if (!isNode) throw new TypeError('files have paths in Node alone; give a URL, a File or a Blob');
  const file = await (await fs()).open(path.startsWith('file:') ? new URL(path) : path);
  const { size } = await file.stat();
  return {
    size,
    read: async (offset: number, length: number) => {
      const bytes = new Uint8Array(length);
      const { bytesRead } = await file.read(bytes, 0, length, offset);
      return bytes.subarray(0, bytesRead);
    },
    close: () => file.close(),
  };
}

/** Those who wait for {@link breathe}, first come first. */
const breathing: (() => void)[] = [];
/** Wakes the first of them: one for all, as to make a channel takes longer than to use it. */
let breath: MessagePort | undefined;

/** Lets messages in that have arrived meanwhile. */
export function breathe(): Promise<void> {
  // An open channel would keep Node from ending.
  if (isNode) return new Promise((resolve) => void setImmediate(resolve));
  if (!breath) {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => breathing.shift()?.();
    breath = port2;
  }
  breath.postMessage(null);
  return new Promise((resolve) => void breathing.push(resolve));
}
