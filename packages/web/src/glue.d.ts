// What wasm-bindgen generates, as far as it is used here. `build.mjs` resolves these names.
declare module 'firecrest-glue' {
  export class ModelBuffer {
    constructor(length: number);
    write(offset: number, piece: Uint8Array): void;
    sha256(): string;
    free(): void;
  }
  export class WasmGeneration {
    prefill(): number;
    next(): string | undefined;
    readonly finish_reason: string | undefined;
    stats(): string;
    free(): void;
  }
  export class WasmModel {
    static from_buffers(shards: ModelBuffer[], config: string): WasmModel;
    start(prompt: unknown, config: string): WasmGeneration;
    format_chat(messages: unknown): string;
    readonly has_chat_template: boolean;
    tokenize(text: string): Uint32Array;
    detokenize(tokens: Uint32Array): string;
    reset_cache(): void;
    metadata(): string;
    free(): void;
  }
  export class EmbeddingModel {
    static from_buffers(shards: ModelBuffer[], config: string): EmbeddingModel;
    encode_texts(texts: string[]): Float32Array;
    dimension(): number;
    metadata(): string;
    free(): void;
  }
  export interface Exports {
    memory: WebAssembly.Memory;
  }
  export function initSync(options: { module: WebAssembly.Module; memory?: WebAssembly.Memory }): Exports;
}
declare module 'firecrest-glue-threads' {
  export * from 'firecrest-glue';
  /** Serves the models of the instance that shares this memory, and does not return; calls `ready` before. */
  export function run_worker(ready: () => void): void;
}
