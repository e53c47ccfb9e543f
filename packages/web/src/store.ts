import { FirecrestError } from './errors.js';

/** Bytes of a block: the unit of range requests, storage and resumption. */
export const BLOCK = 4 << 20;

/** What is known of a stored file. */
export interface StoredFile {
  key: string;
  url: string;
  size: number;
  etag: string | null;
  /** Blocks that are stored; all of them in a whole file. */
  blocks: number[];
  /** When it was last used, in milliseconds since 1970. */
  used: number;
}

/** Where blocks of model files are kept between visits. */
export interface Store {
  readonly kind: 'opfs' | 'cache';
  list(): Promise<StoredFile[]>;
  find(key: string): Promise<StoredFile | undefined>;
  open(file: StoredFile): Promise<OpenFile>;
  remove(key: string): Promise<void>;
}

/** A file that blocks are read from and written to. */
export interface OpenFile {
  /** The bytes of a block, perhaps in `buffer`, which has room for the longest. */
  read(block: number, buffer: Uint8Array): Promise<Uint8Array>;
  write(block: number, bytes: Uint8Array): Promise<void>;
  /** Keeps what was written, and the list of blocks with it. */
  close(): Promise<void>;
}

/** Number of blocks of a file. */
export const blockCount = (size: number) => Math.ceil(size / BLOCK);

/** Bytes of a block, shorter for the last. */
export const blockLength = (size: number, block: number) => Math.min(BLOCK, size - block * BLOCK);

/** Whether all of a file is stored. */
export const isWhole = (file: StoredFile) => file.blocks.length === blockCount(file.size);

/** A name for the file at a URL. */
export async function keyOf(url: string): Promise<string> {
  if (!globalThis.crypto?.subtle) return encodeURIComponent(url).slice(-120);
  const hash = new Uint8Array(await crypto.subtle.digest('SHA-256', new TextEncoder().encode(url)));
  return Array.from(hash.subarray(0, 16), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

const FOLDER = 'firecrest';

/** The store that was asked for, if there is one here; for `auto` the best. */
export async function openStore(kind: 'auto' | 'opfs' | 'cache' | 'none'): Promise<Store | undefined> {
  if (kind === 'none') return undefined;
  if (kind !== 'cache') {
    try {
      const root = await navigator.storage.getDirectory();
      return new OpfsStore(await root.getDirectoryHandle(FOLDER, { create: true }));
    } catch {
      // Private windows, old browsers, Node.
    }
  }
  if (kind !== 'opfs') {
    try {
      return new CacheStore(await caches.open(FOLDER));
    } catch {
      // Insecure pages, Node.
    }
  }
  return undefined;
}

/** Removes the least recently used files until `bytes` fit into the quota; whether they do. */
export async function makeRoom(store: Store, bytes: number, keep: Set<string>): Promise<boolean> {
  const free = async () => {
    const { quota = Infinity, usage = 0 } = (await navigator.storage?.estimate?.()) ?? {};
    return quota - usage;
  };
  if ((await free()) >= bytes) return true;
  const files = (await store.list()).filter((file) => !keep.has(file.key)).sort((a, b) => a.used - b.used);
  for (const file of files) {
    await store.remove(file.key);
    if ((await free()) >= bytes) return true;
  }
  return false;
}

/** Runs one at a time, over all tabs, where the browser has locks. */
export async function exclusively<T>(key: string, signal: AbortSignal | undefined, action: () => Promise<T>): Promise<T> {
  const locks = globalThis.navigator?.locks;
  if (!locks) return action();
  return locks.request(`firecrest:${key}`, signal ? { signal } : {}, action);
}

/** Files in the origin's private file system: `key.gguf`, and `key.json` that tells of it. */
class OpfsStore implements Store {
  readonly kind = 'opfs';
  constructor(private readonly folder: FileSystemDirectoryHandle) {}

  async list(): Promise<StoredFile[]> {
    const files = [];
    for await (const name of this.folder.keys()) {
      if (!name.endsWith('.json')) continue;
      const file = await this.find(name.slice(0, -5));
      if (file) files.push(file);
    }
    return files;
  }

  async find(key: string): Promise<StoredFile | undefined> {
    try {
      const file = await (await this.folder.getFileHandle(`${key}.json`)).getFile();
      return JSON.parse(await file.text()) as StoredFile;
    } catch {
      return undefined;
    }
  }

  async open(file: StoredFile): Promise<OpenFile> {
    const data = await this.folder.getFileHandle(`${file.key}.gguf`, { create: true });
    // A file has one of these at a time, and workers alone have any.
    let opened: Promise<FileSystemSyncAccessHandle> | undefined;
    const handle = () => (opened ??= data.createSyncAccessHandle());
    return {
      read: async (block, buffer) => {
        const start = block * BLOCK;
        const length = blockLength(file.size, block);
        const access = await handle().catch(() => undefined);
        if (access) return buffer.subarray(0, access.read(buffer.subarray(0, length) as Uint8Array<ArrayBuffer>, { at: start }));
        return new Uint8Array(await (await data.getFile()).slice(start, start + length).arrayBuffer());
      },
      write: async (block, bytes) => {
        const access = await handle();
        if (access.write(bytes as Uint8Array<ArrayBuffer>, { at: block * BLOCK }) !== bytes.length) {
          throw new FirecrestError('storage', 'the browser kept less than it was given');
        }
        file.blocks.push(block);
      },
      close: async () => {
        const access = await opened?.catch(() => undefined);
        access?.flush();
        access?.close();
        await this.describe(file);
      },
    };
  }

  async remove(key: string): Promise<void> {
    for (const name of [`${key}.json`, `${key}.gguf`]) await this.folder.removeEntry(name).catch(() => undefined);
  }

  private async describe(file: StoredFile): Promise<void> {
    const handle = await this.folder.getFileHandle(`${file.key}.json`, { create: true });
    const access = await handle.createSyncAccessHandle();
    const bytes = new TextEncoder().encode(JSON.stringify(file));
    access.truncate(0);
    access.write(bytes, { at: 0 });
    access.close();
  }
}

/** Blocks as responses of the Cache API. */
class CacheStore implements Store {
  readonly kind = 'cache';
  constructor(private readonly cache: Cache) {}

  private url(key: string, part: string | number): string {
    return `https://firecrest.invalid/${key}/${part}`;
  }

  async list(): Promise<StoredFile[]> {
    const files = [];
    for (const request of await this.cache.keys()) {
      if (!request.url.endsWith('/index')) continue;
      const response = await this.cache.match(request);
      if (response) files.push((await response.json()) as StoredFile);
    }
    return files;
  }

  async find(key: string): Promise<StoredFile | undefined> {
    const response = await this.cache.match(this.url(key, 'index'));
    return response ? ((await response.json()) as StoredFile) : undefined;
  }

  async open(file: StoredFile): Promise<OpenFile> {
    return {
      read: async (block) => {
        const response = await this.cache.match(this.url(file.key, block));
        if (!response) throw new FirecrestError('storage', `block ${block} of ${file.url} is gone`);
        return new Uint8Array(await response.arrayBuffer());
      },
      write: async (block, bytes) => {
        await this.cache.put(this.url(file.key, block), new Response(bytes as Uint8Array<ArrayBuffer>));
        file.blocks.push(block);
      },
      close: () => this.cache.put(this.url(file.key, 'index'), new Response(JSON.stringify(file))),
    };
  }

  async remove(key: string): Promise<void> {
    for (const request of await this.cache.keys()) {
      if (request.url.startsWith(this.url(key, ''))) await this.cache.delete(request);
    }
  }
}
