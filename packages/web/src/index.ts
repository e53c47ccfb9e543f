import { FirecrestError, fromMessage, throwIfAborted } from './errors.js';
import { choose, defaultThreads, probe } from './features.js';
import type { Variant } from './features.js';
import { isNode, messagePort, startWorker } from './platform.js';
import type { Calls, ChatMessage, GenerationStats, Location, Method, ModelInfo, Port, Progress, Request, Response } from './protocol.js';
import { keyOf, openStore } from './store.js';

export { FirecrestError } from './errors.js';
export type { ErrorCode } from './errors.js';
export { probe } from './features.js';
export type { Features, Variant } from './features.js';
export type { ChatMessage, GenerationStats, ModelInfo, Progress } from './protocol.js';

/** One file, or the parts of a split one: an address, a `File` or `Blob`, or in Node a path. */
export type Source = string | URL | Blob | (string | URL | Blob)[];

/** How to load a model. */
export interface LoadOptions {
  /** Told of each stage, and of bytes while they come. */
  onProgress?: (progress: Progress) => void;
  /** Ends the loading. What was downloaded stays stored. */
  signal?: AbortSignal;
  /** Positions that the KV cache holds; 2048 where absent, and at most what the model was trained on. */
  contextLength?: number;
  /** How keys and values are kept: `f16` where absent. */
  kvCache?: 'f16' | 'f32' | 'q8_0';
  /** Threads, where the page may have any. */
  threads?: number;
  /** The build of the module; the fastest that runs here where absent. */
  variant?: Variant;
  /** SHA-256 of the file in hexadecimal digits, or of each part. */
  sha256?: string | string[];
  /** Where to keep downloads: the origin's private file system, the Cache API, or nowhere. `auto` takes what there is. */
  storage?: 'auto' | 'opfs' | 'cache' | 'none';
  /** Headers of the requests for the model, for an access token say. */
  headers?: Record<string, string>;
  /** Range requests at a time; 4 where absent. */
  connections?: number;
  /** Bytes that the model may take in memory; more is refused before it is downloaded. */
  memoryLimit?: number;
  /** `dedicated`, a worker for this model; `shared`, one that tabs share; `none`, the calling thread. */
  worker?: 'dedicated' | 'shared' | 'none';
  /** Folder of the `.wasm` files, where they are not beside the scripts. */
  wasmUrl?: string | URL;
}

/** How to answer. What is absent is as in llama.cpp. */
export interface GenerateOptions {
  maxTokens?: number;
  /** 0 is greedy. */
  temperature?: number;
  topK?: number;
  topP?: number;
  minP?: number;
  repetitionPenalty?: number;
  presencePenalty?: number;
  frequencyPenalty?: number;
  seed?: number;
  /** Texts that end the answer. */
  stop?: string | string[];
  /** What happens when the context is full: the answer ends, or the older half is forgotten. */
  overflow?: 'error' | 'shift';
  /** Go on with the text of the prompt: no chat template. */
  raw?: boolean;
  /** Ends the answer: the iteration throws the signal's reason. */
  signal?: AbortSignal;
}

/** An answer: an async iterable of its pieces. It is computed ahead of its reader by some pieces at most. */
export interface Answer extends AsyncIterable<string> {
  /** All of the text. */
  text(): Promise<string>;
  /** What the answer took, once it has ended. */
  readonly stats: Promise<GenerationStats>;
}

const OPTIONS: Record<string, string> = {
  maxTokens: 'max_tokens',
  temperature: 'temperature',
  topK: 'top_k',
  topP: 'top_p',
  minP: 'min_p',
  repetitionPenalty: 'repetition_penalty',
  presencePenalty: 'presence_penalty',
  frequencyPenalty: 'frequency_penalty',
  seed: 'seed',
  stop: 'stop',
  overflow: 'overflow',
};

/** Models, and the files that are kept of them. */
export const Firecrest = {
  /** Loads a model that generates text, or one that makes embeddings. */
  async load(source: Source, options: LoadOptions = {}): Promise<Model> {
    throwIfAborted(options.signal);
    const parts = await locations(source, options.headers ?? {});
    const threads = options.threads ?? defaultThreads();
    if (!Number.isInteger(threads) || threads < 1) {
      throw new FirecrestError('config', `threads is ${threads}, expected a whole number from 1`);
    }
    const client = new Client(await connect(options.worker ?? 'dedicated'));
    try {
      const sha256 = typeof options.sha256 === 'string' ? [options.sha256] : options.sha256;
      const input: Calls['load']['in'] = {
        parts,
        contextLength: options.contextLength,
        kvCache: options.kvCache,
        threads,
        variant: options.variant,
        sha256,
        storage: options.storage ?? 'auto',
        connections: options.connections ?? 4,
        memoryLimit: options.memoryLimit,
        wasmUrl: options.wasmUrl === undefined ? undefined : String(options.wasmUrl),
      };
      const info = await client.call('load', input, options.signal, options.onProgress);
      return new Model(client, info);
    } catch (error) {
      client.close();
      throw error;
    }
  },

  /** The build of the module that `load` would take here. */
  variant(threads = defaultThreads()): Variant {
    return choose(probe(), threads);
  },

  /** Models that are kept in this browser. */
  async stored(): Promise<{ url: string; bytes: number; complete: boolean; lastUsed: Date }[]> {
    const files = (await (await openStore('auto'))?.list()) ?? [];
    return files.map(({ url, size, blocks, used }) => {
      const bytes = Math.min(size, blocks.length * (4 << 20));
      return { url, bytes, complete: bytes === size, lastUsed: new Date(used) };
    });
  },

  /** Forgets the file of a URL. */
  async remove(url: string | URL): Promise<void> {
    await (await openStore('auto'))?.remove(await keyOf(absolute(String(url))));
  },

  /** What this origin stores, and may store, in bytes. */
  async quota(): Promise<{ usage: number; quota: number }> {
    const { usage = 0, quota = 0 } = (await globalThis.navigator?.storage?.estimate?.()) ?? {};
    return { usage, quota };
  },
};

/** A loaded model. */
export class Model {
  /** What it is, and what it runs on. */
  readonly info: ModelInfo;
  readonly #client: Client;

  /** @internal */
  constructor(client: Client, info: ModelInfo) {
    this.#client = client;
    this.info = info;
  }

  /** Answers a prompt or a conversation, by the model's chat template if it has one. */
  generate(prompt: string | ChatMessage[], options: GenerateOptions = {}): Answer {
    const config: Record<string, unknown> = {};
    for (const [name, value] of Object.entries(options)) {
      if (value === undefined || name === 'raw' || name === 'signal') continue;
      const key = OPTIONS[name];
      if (!key) throw new FirecrestError('config', `unknown option ${JSON.stringify(name)}; known are ${Object.keys(OPTIONS).join(', ')}, raw, signal`);
      config[key] = value;
    }
    return this.#client.stream({ prompt, raw: options.raw ?? false, config }, options.signal);
  }

  /** The embedding of each text, of length `info.dimension`. */
  embed(texts: string[], options: { signal?: AbortSignal } = {}): Promise<Float32Array[]> {
    return this.#client.call('embed', { texts }, options.signal);
  }

  /** The tokens of a text. */
  tokenize(text: string): Promise<Uint32Array> {
    return this.#client.call('tokenize', { text });
  }

  /** The text of tokens. */
  detokenize(tokens: Uint32Array | number[]): Promise<string> {
    return this.#client.call('detokenize', { tokens: Uint32Array.from(tokens) });
  }

  /** The prompt that the chat template makes of a conversation. */
  formatChat(messages: ChatMessage[]): Promise<string> {
    return this.#client.call('formatChat', { messages });
  }

  /** Forgets the conversation that the KV cache holds. */
  reset(): Promise<void> {
    return this.#client.call('reset', {});
  }

  /** Bytes of the module's memory. */
  memory(): Promise<number> {
    return this.#client.call('memory', {});
  }

  /** Ends the worker and gives its memory back. Calls that run are rejected; later ones too. */
  dispose(): void {
    this.#client.close();
  }
}

/** Calls over a port. */
class Client {
  #next = 0;
  #closed: FirecrestError | undefined;
  readonly #pending = new Map<number, { settle: (response: Response) => void; fail: (error: Error) => void }>();

  constructor(private readonly port: Port) {
    port.onMessage((response: Response) => this.#pending.get(response.id)?.settle(response));
    port.onError((error) => this.#end(new FirecrestError('internal', `the worker failed: ${error.message}`, {}, error)));
  }

  call<M extends Method>(
    method: M,
    input: Calls[M]['in'],
    signal?: AbortSignal,
    onEvent?: (event: Calls[M]['event'], id: number) => void,
  ): Promise<Calls[M]['out']> {
    if (this.#closed) return Promise.reject(this.#closed);
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      const abort = () => {
        this.#send({ id, method: 'abort' });
        done();
        reject(signal!.reason as Error);
      };
      const done = () => {
        signal?.removeEventListener('abort', abort);
        this.#pending.delete(id);
      };
      this.#pending.set(id, {
        settle: (response) => {
          if ('event' in response) return onEvent?.(response.event as Calls[M]['event'], id);
          done();
          if ('error' in response) reject(fromMessage(response.error));
          else resolve(response.result as Calls[M]['out']);
        },
        fail: (error) => {
          done();
          reject(error);
        },
      });
      this.#send({ id, method, input } as Request);
      if (signal?.aborted) abort();
      else signal?.addEventListener('abort', abort, { once: true });
    });
  }

  stream(input: Calls['generate']['in'], signal: AbortSignal | undefined): Answer {
    const stop = new AbortController();
    const either = signal ? AbortSignal.any([signal, stop.signal]) : stop.signal;
    const pieces: string[] = [];
    let wake = () => {};
    let ended = false;
    let call = 0;
    const stats = this.call('generate', input, either, (arrived, id) => {
      call = id;
      pieces.push(...arrived);
      wake();
    });
    const finish = () => {
      ended = true;
      wake();
    };
    stats.then(finish, finish);
    const send = (request: Request) => this.#send(request);
    const iterate = async function* () {
      try {
        for (;;) {
          let count = 0;
          for (; pieces.length > 0; count++) {
            throwIfAborted(signal);
            yield pieces.shift()!;
          }
          if (ended) break;
          if (count > 0) send({ id: call, method: 'ack', count });
          await new Promise<void>((resolve) => (wake = resolve));
        }
        await stats;
      } finally {
        // The reader has left the loop: nobody wants the rest.
        if (!ended) stop.abort(new DOMException('The reader stopped.', 'AbortError'));
      }
    };
    return {
      stats,
      [Symbol.asyncIterator]: iterate,
      text: async () => {
        let text = '';
        for await (const piece of iterate()) text += piece;
        return text;
      },
    };
  }

  close(): void {
    if (this.#closed) return;
    this.#send({ id: -1, method: 'close' });
    this.#end(new FirecrestError('disposed', 'the model was disposed'));
  }

  #send(request: Request): void {
    if (!this.#closed) this.port.postMessage(request);
  }

  #end(error: FirecrestError): void {
    this.#closed ??= error;
    for (const { fail } of [...this.#pending.values()]) fail(error);
    this.port.close();
  }
}

async function connect(kind: 'dedicated' | 'shared' | 'none'): Promise<Port> {
  if (kind === 'none') {
    const { port1, port2 } = new MessageChannel();
    const { Host } = await import('./host.js');
    new Host(messagePort(port2));
    return messagePort(port1);
  }
  if (kind === 'shared' && typeof SharedWorker !== 'undefined') {
    const worker = new SharedWorker(new URL('./worker.js', import.meta.url), { type: 'module', name: 'firecrest' });
    const port = messagePort(worker.port);
    return { ...port, onError: (handler) => worker.addEventListener('error', () => handler(new Error('the shared worker did not start'))) };
  }
  return startWorker(new URL('./worker.js', import.meta.url), 'firecrest');
}

const SPLIT = /-00001-of-(\d{5})\.gguf(?=$|[?#])/;

async function locations(source: Source, headers: Record<string, string>): Promise<Location[]> {
  const given = Array.isArray(source) ? source : [source];
  const all = given.flatMap((part) => {
    const name = part instanceof Blob ? '' : String(part);
    const count = given.length === 1 ? Number(SPLIT.exec(name)?.[1] ?? 1) : 1;
    if (count === 1) return [part];
    const number = (i: number) => String(i + 1).padStart(5, '0');
    return Array.from({ length: count }, (_, i) => name.replace(/-00001-of-/, `-${number(i)}-of-`));
  });
  if (all.length === 0) throw new FirecrestError('input', 'no source was given');
  return all.map((part) => {
    if (part instanceof Blob) return { blob: part, name: part instanceof File ? part.name : '' };
    const text = String(part);
    if (isNode && !/^https?:/.test(text)) return { path: text };
    return { url: absolute(text), headers };
  });
}

function absolute(url: string): string {
  try {
    return new URL(url, globalThis.location?.href).href;
  } catch {
    throw new FirecrestError('input', `${JSON.stringify(url)} is no URL`);
  }
}
