import type { EmbeddingModel, ModelBuffer, WasmModel } from 'firecrest-glue';

import { download } from './download.js';
import type { Sink } from './download.js';
import { getEngine } from './engine.js';
import type { Engine } from './engine.js';
import { FirecrestError, throwIfAborted, toMessage } from './errors.js';
import { readShape } from './gguf.js';
import { breathe, openPath } from './platform.js';
import { WINDOW } from './protocol.js';
import type { Calls, GenerationStats, LoadRequest, Location, Method, ModelInfo, Port, Progress, Request } from './protocol.js';
import { BLOCK } from './store.js';

/** What a module with 32-bit addresses can hold, less what code and stack take. */
const MOST_MEMORY = 4 * 2 ** 30 - 2 ** 26;

/** Positions of a context that is not asked for, at most. */
const DEFAULT_CONTEXT = 2048;

/** Tokens of a prompt between two looks at the messages. */
const PREFILL_BLOCK = 128;

/**
 * Milliseconds that pieces of an answer wait for each other: a frame of a screen. For each message the page's own thread
 * takes a processor from the threads that compute.
 */
const FRAME = 16;

type Emit<M extends Method> = (event: Calls[M]['event']) => void;

/** A call that runs: how it is aborted, and the pieces that the reader has taken. */
interface Running {
  abort: AbortController;
  acked: number;
  wake: () => void;
}

/** Serves one client: holds its model and answers its calls. */
export class Host {
  private engine: Engine | undefined;
  private language: WasmModel | undefined;
  private embedding: EmbeddingModel | undefined;
  private readonly running = new Map<number, Running>();
  /** Answers wait for each other: there is one KV cache. */
  private queue: Promise<unknown> = Promise.resolve();

  constructor(private readonly port: Port) {
    port.onMessage((request: Request) => void this.handle(request));
  }

  private async handle(request: Request): Promise<void> {
    const running = this.running.get(request.id);
    if (request.method === 'abort') {
      running?.abort.abort(new DOMException('The operation was aborted.', 'AbortError'));
      running?.wake();
    } else if (request.method === 'ack') {
      if (running) running.acked += request.count;
      running?.wake();
    } else if (request.method === 'close') {
      this.close();
    } else {
      await this.call(request.id, request.method, request.input);
    }
  }

  private async call<M extends Method>(id: number, method: M, input: Calls[M]['in']): Promise<void> {
    const running: Running = { abort: new AbortController(), acked: 0, wake: () => undefined };
    this.running.set(id, running);
    try {
      const methods = this as unknown as Record<Method, (...of: unknown[]) => unknown>;
      const run = () => methods[method](input, (event: unknown) => this.port.postMessage({ id, event }), running);
      const turn = this.queue.then(run);
      this.queue = turn.catch(() => undefined);
      this.port.postMessage({ id, result: await turn });
    } catch (error) {
      this.port.postMessage({ id, error: toMessage(error) });
    } finally {
      this.running.delete(id);
    }
  }

  private close(): void {
    for (const { abort, wake } of this.running.values()) {
      abort.abort(new DOMException('The model was disposed.', 'AbortError'));
      wake();
    }
    void this.queue.then(() => {
      this.language?.free();
      this.embedding?.free();
      this.language = this.embedding = undefined;
      this.port.close();
    });
  }

  protected async load(request: LoadRequest, emit: Emit<'load'>, { abort: { signal } }: Running): Promise<ModelInfo> {
    const progress: Progress = { stage: 'start', loaded: 0, total: 0, stored: 0 };
    emit({ ...progress });
    throwIfAborted(signal);
    const engine = (this.engine = await getEngine(request.variant, request.threads, request.wasmUrl));
    const loading = new Loading(engine, request, progress, emit);
    try {
      await loading.readAll(signal);
      emit({ ...progress, stage: 'initialize' });
      const config: Record<string, unknown> = { context_length: loading.contextLength, threads: engine.threads };
      if (request.kvCache) config['kv_cache'] = request.kvCache;
      const kind = loading.isEncoder ? 'embedding' : 'language';
      const shards = loading.take();
      if (kind === 'embedding') {
        this.embedding = engine.glue.EmbeddingModel.from_buffers(shards, JSON.stringify({ threads: engine.threads }));
      } else {
        this.language = engine.glue.WasmModel.from_buffers(shards, JSON.stringify(config));
      }
      emit({ ...progress, stage: 'ready' });
      return this.info(kind);
    } finally {
      loading.free();
    }
  }

  private info(kind: 'language' | 'embedding'): ModelInfo {
    const engine = this.engine!;
    const about = JSON.parse((this.language ?? this.embedding!).metadata()) as Record<string, never>;
    return {
      kind,
      name: about['name'] ?? null,
      architecture: about['architecture']!,
      parameters: about['parameters']!,
      fileBytes: about['file_bytes']!,
      contextLength: about['context_length']!,
      trainedContextLength: about['trained_context_length']!,
      vocabulary: about['vocabulary']!,
      hasChatTemplate: about['has_chat_template'] ?? false,
      dimension: this.embedding?.dimension() ?? 0,
      threads: about['threads'] ?? engine.threads,
      instructionSet: about['instruction_set']!,
      variant: engine.variant,
      memoryBytes: engine.memory.buffer.byteLength,
    };
  }

  protected async generate(
    { prompt, raw, config }: Calls['generate']['in'],
    emit: Emit<'generate'>,
    running: Running,
  ): Promise<GenerationStats> {
    const { signal } = running.abort;
    throwIfAborted(signal);
    const model = this.model();
    const messages = typeof prompt === 'string' && !raw && model.has_chat_template;
    const input = messages ? [{ role: 'user', content: prompt }] : prompt;
    const generation = model.start(input, JSON.stringify({ prefill_block: PREFILL_BLOCK, ...config }));
    let sent = 0;
    let due = 0;
    const pieces: string[] = [];
    const send = () => {
      if (pieces.length === 0) return;
      sent += pieces.length;
      emit(pieces.splice(0));
    };
    try {
      while (!signal.aborted && generation.prefill() > 0) await breathe();
      while (!signal.aborted) {
        const piece = generation.next();
        if (piece === undefined) break;
        if (piece !== '') pieces.push(piece);
        if (performance.now() < due) continue;
        send();
        await breathe();
        due = performance.now() + FRAME;
        while (sent - running.acked >= WINDOW && !signal.aborted) {
          await new Promise<void>((resolve) => (running.wake = resolve));
        }
      }
      throwIfAborted(signal);
      const stats = JSON.parse(generation.stats()) as Record<string, number>;
      return {
        promptTokens: stats['prompt_tokens']!,
        reusedTokens: stats['reused_tokens']!,
        generatedTokens: stats['generated_tokens']!,
        prefillMs: stats['prefill_ms']!,
        decodeMs: stats['decode_ms']!,
        prefillTokensPerSecond: stats['prefill_tokens_per_second'] ?? null,
        tokensPerSecond: stats['tokens_per_second'] ?? null,
        finishReason: generation.finish_reason as GenerationStats['finishReason'],
        memoryBytes: this.engine!.memory.buffer.byteLength,
      };
    } finally {
      send();
      generation.free();
    }
  }

  protected tokenize({ text }: { text: string }): Uint32Array {
    return this.model().tokenize(text);
  }

  protected detokenize({ tokens }: { tokens: Uint32Array }): string {
    return this.model().detokenize(tokens);
  }

  protected formatChat({ messages }: Calls['formatChat']['in']): string {
    return this.model().format_chat(messages);
  }

  protected async embed({ texts }: { texts: string[] }, _: unknown, { abort: { signal } }: Running): Promise<Float32Array[]> {
    if (!this.embedding) throw new FirecrestError('unsupported', 'this is a language model; it makes no embeddings');
    const dimension = this.embedding.dimension();
    const vectors = [];
    for (let i = 0; i < texts.length; i += 16) {
      throwIfAborted(signal);
      const flat = this.embedding.encode_texts(texts.slice(i, i + 16));
      for (let at = 0; at < flat.length; at += dimension) vectors.push(flat.slice(at, at + dimension));
      await breathe();
    }
    return vectors;
  }

  protected reset(): void {
    this.model().reset_cache();
  }

  protected memory(): number {
    return this.engine?.memory.buffer.byteLength ?? 0;
  }

  private model(): WasmModel {
    if (this.language) return this.language;
    throw new FirecrestError('unsupported', 'this is an embedding model; it generates no text');
  }
}

const ENCODERS = ['bert', 'nomic-bert', 'nomic-bert-moe', 'jina-bert-v2', 'jina-bert-v3', 'modern-bert', 'neo-bert', 'eurobert'];

/** The parts of a model on their way into the module's memory. */
class Loading {
  private readonly buffers: (ModelBuffer | undefined)[] = [];
  private readonly sizes: number[] = [];
  contextLength = DEFAULT_CONTEXT;
  isEncoder = false;

  constructor(
    private readonly engine: Engine,
    private readonly request: LoadRequest,
    private readonly progress: Progress,
    private readonly emit: Emit<'load'>,
  ) {}

  async readAll(signal: AbortSignal): Promise<void> {
    const keep = new Set<string>();
    for (const [part, location] of this.request.parts.entries()) {
      await this.read(location, this.sink(part), signal, keep);
      const expected = this.request.sha256?.[part];
      if (expected === undefined) continue;
      this.emit({ ...this.progress, stage: 'verify' });
      const found = this.buffers[part]!.sha256();
      if (found !== expected.toLowerCase()) {
        throw new FirecrestError('checksum', `part ${part + 1} has SHA-256 ${found}, expected ${expected}`, { found, expected });
      }
    }
  }

  /** The filled buffers, which are the receiver's from now on. */
  take(): ModelBuffer[] {
    return this.buffers.splice(0) as ModelBuffer[];
  }

  free(): void {
    for (const buffer of this.take()) buffer?.free();
  }

  private async read(location: Location, sink: Sink, signal: AbortSignal, keep: Set<string>): Promise<void> {
    if ('url' in location) {
      const { storage, connections } = this.request;
      return download(location.url, sink, { headers: location.headers, signal, storage, connections, keep });
    }
    const source = 'path' in location ? await openPath(location.path).catch(unreadable) : blobSource(location.blob);
    try {
      let offset = 0;
      do {
        throwIfAborted(signal);
        const bytes = await source.read(offset, Math.min(BLOCK, source.size - offset)).catch(unreadable);
        if (offset === 0) sink.begin(source.size, bytes);
        if (bytes.length === 0) break;
        sink.write(offset, bytes, true);
        offset += bytes.length;
      } while (offset < source.size);
    } finally {
      await source.close();
    }
  }

  private sink(part: number): Sink {
    let shown = 0;
    return {
      begin: (size, head) => {
        this.sizes[part] = size;
        this.progress.total = this.sizes.reduce((sum, size) => sum + size, 0);
        this.checkMemory(part, head);
        this.buffers[part] = new this.engine.glue.ModelBuffer(size);
      },
      write: (offset, bytes, stored) => {
        this.buffers[part]!.write(offset, bytes);
        this.progress.loaded += bytes.length;
        if (stored) this.progress.stored += bytes.length;
        this.progress.stage = stored ? 'read' : 'download';
        const now = performance.now();
        if (now - shown < 50 && this.progress.loaded < this.progress.total) return;
        shown = now;
        this.emit({ ...this.progress });
      },
    };
  }

  /** Refuses what cannot fit before memory is taken for it. */
  private checkMemory(part: number, head: Uint8Array): void {
    const shape = part === 0 ? readShape(head) : undefined;
    let cache = 0;
    let work = 0;
    if (shape) {
      this.isEncoder = ENCODERS.includes(shape.architecture);
      this.contextLength = Math.min(shape.contextLength, this.request.contextLength ?? DEFAULT_CONTEXT);
      const scale = { f32: 2, f16: 1, q8_0: 0.5625 }[this.request.kvCache ?? 'f16'];
      cache = this.isEncoder ? 0 : Math.ceil(this.contextLength * shape.kvBytesPerPosition * scale);
      work = shape.workBytes;
    }
    const file = this.progress.total;
    const needed = file + cache + work;
    const device = (globalThis.navigator as { deviceMemory?: number } | undefined)?.deviceMemory;
    // 8 is the most that browsers admit to.
    const machine = device === undefined || device >= 8 ? Infinity : device * 2 ** 30;
    const available = Math.min(MOST_MEMORY, machine, this.request.memoryLimit ?? Infinity);
    if (needed > available) {
      const mb = (bytes: number) => `${Math.ceil(bytes / 1e6)} MB`;
      throw new FirecrestError(
        'memory',
        `the model needs ${mb(needed)} (file ${mb(file)}, KV cache ${mb(cache)}, working memory ${mb(work)}); ${mb(available)} are available`,
        { needed, available, file, cache, work },
      );
    }
  }
}

function blobSource(blob: Blob) {
  return {
    size: blob.size,
    read: async (offset: number, length: number) => new Uint8Array(await blob.slice(offset, offset + length).arrayBuffer()),
    close: () => Promise.resolve(),
  };
}

function unreadable(error: unknown): never {
  throw new FirecrestError('storage', `the file cannot be read: ${error instanceof Error ? error.message : String(error)}`, {}, error);
}
