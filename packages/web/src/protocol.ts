import type { ErrorMessage } from './errors.js';
import type { Variant } from './features.js';

/** Where a model comes from, as it travels to the worker. */
export type Location = { url: string; headers: Record<string, string> } | { blob: Blob; name: string } | { path: string };

/** Options of loading that the worker needs. */
export interface LoadRequest {
  parts: Location[];
  contextLength: number | undefined;
  kvCache: 'f16' | 'f32' | 'q8_0' | undefined;
  threads: number;
  variant: Variant | undefined;
  sha256: string[] | undefined;
  storage: 'auto' | 'opfs' | 'cache' | 'none';
  connections: number;
  memoryLimit: number | undefined;
  wasmUrl: string | undefined;
}

/** A message of a chat. */
export interface ChatMessage {
  role: 'system' | 'user' | 'assistant' | 'tool' | (string & {});
  content: string;
  [field: string]: unknown;
}

/** How far loading is. */
export interface Progress {
  stage: 'start' | 'download' | 'read' | 'verify' | 'initialize' | 'ready';
  /** Bytes that are in memory. */
  loaded: number;
  /** Bytes of the model; 0 where that is not known. */
  total: number;
  /** Bytes of `loaded` that came from storage. */
  stored: number;
}

/** What a model is, and what it runs on. */
export interface ModelInfo {
  kind: 'language' | 'embedding';
  name: string | null;
  architecture: string;
  parameters: number;
  fileBytes: number;
  contextLength: number;
  trainedContextLength: number;
  vocabulary: number;
  hasChatTemplate: boolean;
  /** Length of an embedding; 0 for language models. */
  dimension: number;
  threads: number;
  instructionSet: string;
  variant: Variant;
  /** Bytes of the module's memory. */
  memoryBytes: number;
}

/** What an answer took. */
export interface GenerationStats {
  promptTokens: number;
  /** Tokens of the prompt that were in the KV cache. */
  reusedTokens: number;
  generatedTokens: number;
  prefillMs: number;
  decodeMs: number;
  prefillTokensPerSecond: number | null;
  tokensPerSecond: number | null;
  finishReason: 'stop' | 'stop string' | 'length' | 'context full' | 'cancelled';
  memoryBytes: number;
}

/** What the worker is asked for, by name: parameters and result. */
export interface Calls {
  load: { in: LoadRequest; out: ModelInfo; event: Progress };
  generate: { in: { prompt: string | ChatMessage[]; raw: boolean; config: Record<string, unknown> }; out: GenerationStats; event: string[] };
  tokenize: { in: { text: string }; out: Uint32Array; event: never };
  detokenize: { in: { tokens: Uint32Array }; out: string; event: never };
  formatChat: { in: { messages: ChatMessage[] }; out: string; event: never };
  embed: { in: { texts: string[] }; out: Float32Array[]; event: never };
  reset: { in: Record<string, never>; out: void; event: never };
  memory: { in: Record<string, never>; out: number; event: never };
}
export type Method = keyof Calls;

/** To the worker. */
export type Request =
  | { [M in Method]: { id: number; method: M; input: Calls[M]['in'] } }[Method]
  | { id: number; method: 'abort' }
  | { id: number; method: 'ack'; count: number }
  | { id: number; method: 'close' };

/** From the worker. */
export type Response =
  | { id: number; event: unknown }
  | { id: number; result: unknown }
  | { id: number; error: ErrorMessage };

/** The two ends of a channel, in browsers and in Node. */
export interface Port {
  postMessage(message: unknown, transfer?: Transferable[]): void;
  onMessage(handler: (message: never) => void): void;
  onError(handler: (error: Error) => void): void;
  close(): void;
}

/** Pieces that may be on their way before the worker waits for the reader. */
export const WINDOW = 64;
