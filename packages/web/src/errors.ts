/** The kind of a failure. The first six come from the engine, the others from loading. */
export type ErrorCode =
  | 'parse'
  | 'unsupported'
  | 'config'
  | 'input'
  | 'inference'
  | 'memory'
  | 'network'
  | 'storage'
  | 'checksum'
  | 'disposed'
  | 'internal';

/** An error of this package. `code` says which kind, and so does `name`: `parse` is `ParseError`. */
export class FirecrestError extends Error {
  readonly code: ErrorCode;
  /** Numbers that belong to the error: for `memory`, what is needed and what there is, in bytes. */
  readonly details: Readonly<Record<string, number | string>>;

  constructor(code: ErrorCode, message: string, details: Record<string, number | string> = {}, cause?: unknown) {
    super(message, cause === undefined ? {} : { cause });
    this.name = `${code[0]!.toUpperCase()}${code.slice(1)}Error`;
    this.code = code;
    this.details = details;
  }
}

/** An error as it travels between threads. */
export interface ErrorMessage {
  name: string;
  message: string;
  code: ErrorCode | undefined;
  details: Record<string, number | string>;
}

/** Makes a message of whatever was thrown. */
export function toMessage(error: unknown): ErrorMessage {
  if (error instanceof FirecrestError) {
    return { name: error.name, message: error.message, code: error.code, details: { ...error.details } };
  }
  if (error instanceof Error) {
    const code = (error as { code?: unknown }).code;
    const known = error.name === 'AbortError' ? undefined : isCode(code) ? code : 'internal';
    return { name: error.name, message: error.message, code: known, details: {} };
  }
  return { name: 'Error', message: String(error), code: 'internal', details: {} };
}

/** The error that a message stands for. */
export function fromMessage(message: ErrorMessage): Error {
  if (message.code === undefined) return new DOMException(message.message, message.name);
  return new FirecrestError(message.code, message.message, message.details);
}

const CODES = ['parse', 'unsupported', 'config', 'input', 'inference', 'memory', 'network', 'storage', 'checksum'];

function isCode(code: unknown): code is ErrorCode {
  return typeof code === 'string' && CODES.includes(code);
}

/** What an aborted operation throws: the signal's reason, as `fetch` does. */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw signal.reason ?? new DOMException('The operation was aborted.', 'AbortError');
}
