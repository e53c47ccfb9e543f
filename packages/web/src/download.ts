import { FirecrestError, throwIfAborted } from './errors.js';
import { BLOCK, blockCount, blockLength, exclusively, isWhole, keyOf, makeRoom, openStore } from './store.js';
import type { OpenFile, Store, StoredFile } from './store.js';

/** Takes the bytes of one file, in any order. */
export interface Sink {
  /** Called once, before the first bytes. `head` is the beginning of the file, as much of it as came. */
  begin(size: number, head: Uint8Array): void;
  write(offset: number, bytes: Uint8Array, stored: boolean): void;
}

/** How to download. */
export interface DownloadOptions {
  headers: Record<string, string>;
  signal: AbortSignal;
  storage: 'auto' | 'opfs' | 'cache' | 'none';
  connections: number;
  /** Keys of files that must not be evicted for this one. */
  keep: Set<string>;
}

const ATTEMPTS = 5;

/** Brings the file at a URL into `sink`: from storage what is there, the rest from the network, stored for next time. */
export async function download(url: string, sink: Sink, options: DownloadOptions): Promise<void> {
  const store = await openStore(options.storage);
  const key = await keyOf(url);
  options.keep.add(key);
  if (!store) return fetchFile(url, sink, options, undefined);
  // A second tab waits here for the first, and then finds the file stored.
  await exclusively(key, options.signal, async () => {
    const file = await store.find(key);
    if (file && isWhole(file)) {
      try {
        await readStored(store, file, sink, options.signal);
        return;
      } catch (error) {
        throwIfAborted(options.signal);
        if (error instanceof FirecrestError && error.code !== 'storage') throw error;
        await store.remove(key);
      }
    }
    await fetchFile(url, sink, options, { store, key, file });
  });
}

async function readStored(store: Store, file: StoredFile, sink: Sink, signal: AbortSignal): Promise<void> {
  const open = await store.open(file);
  const buffer = new Uint8Array(BLOCK);
  for (let block = 0; block < blockCount(file.size); block++) {
    throwIfAborted(signal);
    const bytes = await open.read(block, buffer);
    if (bytes.length !== blockLength(file.size, block)) {
      throw new FirecrestError('storage', `block ${block} of ${file.url} is incomplete`);
    }
    if (block === 0) sink.begin(file.size, bytes);
    sink.write(block * BLOCK, bytes, true);
  }
  file.used = Date.now();
  await open.close();
}

interface Kept {
  store: Store;
  key: string;
  file: StoredFile | undefined;
}

async function fetchFile(url: string, sink: Sink, options: DownloadOptions, kept: Kept | undefined): Promise<void> {
  const first = await request(url, 0, BLOCK, options);
  if (first.status !== 206) return fetchWhole(url, first, sink, options.signal);

  const size = Number(/\/(\d+)$/.exec(first.headers.get('content-range') ?? '')?.[1]);
  if (!Number.isSafeInteger(size)) throw new FirecrestError('network', `${url}: the server does not say how long the file is`);
  const etag = first.headers.get('etag') ?? first.headers.get('last-modified');

  let file = kept?.file;
  let open: OpenFile | undefined;
  if (kept) {
    if (!file || file.size !== size || file.etag !== etag) {
      if (file) await kept.store.remove(kept.key);
      file = { key: kept.key, url, size, etag, blocks: [], used: 0 };
    }
    file.used = Date.now();
    const missing = size - file.blocks.length * BLOCK;
    if (await makeRoom(kept.store, missing, options.keep)) open = await kept.store.open(file);
  }
  const stored = new Set(open ? file!.blocks : []);
  const stop = new AbortController();
  const signal = AbortSignal.any([options.signal, stop.signal]);

  const save = async (block: number, bytes: Uint8Array) => {
    try {
      await open?.write(block, bytes);
    } catch {
      // The disk is full, say. The model still loads.
      open = undefined;
    }
  };
  try {
    const head = new Uint8Array(blockLength(size, 0));
    const progress = { received: 0 };
    await fill(url, 0, head, first, { ...options, signal }, progress, etag);
    sink.begin(size, head);
    sink.write(0, head, stored.has(0));
    if (!stored.has(0)) await save(0, head);

    let next = 1;
    const worker = async () => {
      const buffer = next < blockCount(size) ? new Uint8Array(BLOCK) : head;
      while (next < blockCount(size)) {
        const block = next++;
        throwIfAborted(signal);
        if (open && stored.has(block)) {
          sink.write(block * BLOCK, await open.read(block, buffer), true);
          continue;
        }
        const bytes = buffer.subarray(0, blockLength(size, block));
        await fill(url, block * BLOCK, bytes, undefined, { ...options, signal }, { received: 0 }, etag);
        sink.write(block * BLOCK, bytes, false);
        await save(block, bytes);
      }
    };
    await Promise.all(Array.from({ length: options.connections }, worker));
  } finally {
    stop.abort();
    // What came is kept, also when the rest did not.
    await open?.close().catch(() => undefined);
  }
}

/** Fills `bytes` from `offset` of the file, going on where a connection broke off. */
async function fill(
  url: string,
  offset: number,
  bytes: Uint8Array,
  response: Response | undefined,
  options: DownloadOptions,
  progress: { received: number },
  etag: string | null,
): Promise<void> {
  for (let attempt = 1; progress.received < bytes.length; attempt++) {
    try {
      const part = response ?? (await request(url, offset + progress.received, bytes.length - progress.received, options));
      response = undefined;
      const tag = part.headers.get('etag') ?? part.headers.get('last-modified');
      if (part.status !== 206 || tag !== etag) {
        throw new FirecrestError('network', `${url}: the file changed while it was downloaded`);
      }
      for await (const chunk of chunks(part)) {
        const rest = bytes.length - progress.received;
        bytes.set(chunk.length > rest ? chunk.subarray(0, rest) : chunk, progress.received);
        progress.received += Math.min(chunk.length, rest);
        attempt = 1;
      }
      if (progress.received < bytes.length) throw new TypeError('the connection ended early');
    } catch (error) {
      throwIfAborted(options.signal);
      if (error instanceof FirecrestError || attempt >= ATTEMPTS) throw unreachable(url, error);
      await pause(250 * 2 ** attempt, options.signal);
    }
  }
}

/** A server without range requests: all of it in one stream, and from the beginning if it breaks off. */
async function fetchWhole(url: string, response: Response, sink: Sink, signal: AbortSignal): Promise<void> {
  const length = response.headers.get('content-encoding') ? null : response.headers.get('content-length');
  try {
    if (length === null) {
      const bytes = new Uint8Array(await response.arrayBuffer());
      sink.begin(bytes.length, bytes.subarray(0, BLOCK));
      sink.write(0, bytes, false);
      return;
    }
    const size = Number(length);
    let offset = 0;
    for await (const chunk of chunks(response)) {
      if (offset === 0) sink.begin(size, chunk);
      sink.write(offset, chunk, false);
      offset += chunk.length;
    }
    if (offset !== size) throw new TypeError(`the connection ended after ${offset} of ${size} bytes`);
  } catch (error) {
    throwIfAborted(signal);
    throw unreachable(url, error);
  }
}

async function request(url: string, offset: number, length: number, options: DownloadOptions): Promise<Response> {
  for (let attempt = 1; ; attempt++) {
    try {
      const headers = { ...options.headers, Range: `bytes=${offset}-${offset + length - 1}` };
      const response = await fetch(url, { headers, signal: options.signal });
      if (response.ok) return response;
      const error = new FirecrestError('network', `${url}: ${response.status} ${response.statusText}`, { status: response.status });
      if (response.status < 500 && response.status !== 429) throw error;
      throw new TypeError(error.message);
    } catch (error) {
      throwIfAborted(options.signal);
      if (error instanceof FirecrestError || attempt >= ATTEMPTS) throw unreachable(url, error);
      await pause(250 * 2 ** attempt, options.signal);
    }
  }
}

/** Bytes that are read from a response at a time, at most. */
const CHUNK = 1 << 18;

/** The body of a response. A piece is overwritten by the next: else there would be garbage as long as the file. */
async function* chunks(response: Response): AsyncGenerator<Uint8Array> {
  if (!response.body) return;
  let reader: ReadableStreamBYOBReader | ReadableStreamDefaultReader<Uint8Array>;
  let read: () => Promise<ReadableStreamReadResult<Uint8Array>>;
  try {
    const into = (reader = response.body.getReader({ mode: 'byob' }));
    let buffer = new ArrayBuffer(CHUNK);
    read = async () => {
      const next = await into.read(new Uint8Array(buffer));
      if (next.value) buffer = next.value.buffer;
      return next;
    };
  } catch {
    // Browsers whose bodies are no streams of bytes.
    const from = (reader = response.body.getReader());
    read = () => from.read();
  }
  try {
    for (let next = await read(); !next.done; next = await read()) yield next.value;
  } finally {
    void reader.cancel().catch(() => undefined);
  }
}

function unreachable(url: string, error: unknown): FirecrestError {
  if (error instanceof FirecrestError) return error;
  return new FirecrestError('network', `${url}: ${error instanceof Error ? error.message : String(error)}`, {}, error);
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener('abort', stop);
      resolve();
    }, ms);
    signal.addEventListener('abort', stop, { once: true });
  });
}
