/** What memory a model needs besides its weights, from the beginning of its file. */
export interface Shape {
  architecture: string;
  contextLength: number;
  /** Bytes of keys and values for each position, at 16 bits a value. */
  kvBytesPerPosition: number;
  /** Bytes of activations that are held at a time, roughly. */
  workBytes: number;
}

/** Reads the metadata at the beginning of a GGUF file, as far as they go in `bytes`; `undefined` where they do not tell. */
export function readShape(bytes: Uint8Array): Shape | undefined {
  const values = new Map<string, number | string>();
  try {
    readMetadata(new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength), values);
  } catch (error) {
    // The end of what was given: what was read until there may be enough.
    if (!(error instanceof RangeError)) throw error;
  }
  const architecture = values.get('general.architecture');
  if (typeof architecture !== 'string') return undefined;
  const number = (key: string) => {
    const value = values.get(`${architecture}.${key}`);
    return typeof value === 'number' ? value : undefined;
  };
  const layers = number('block_count');
  const width = number('embedding_length');
  const heads = number('attention.head_count');
  const contextLength = number('context_length');
  if (layers === undefined || width === undefined || heads === undefined || contextLength === undefined) return undefined;
  const kvHeads = number('attention.head_count_kv') ?? heads;
  const key = number('attention.key_length') ?? width / heads;
  const value = number('attention.value_length') ?? key;
  const hidden = number('feed_forward_length') ?? 4 * width;
  return {
    architecture,
    contextLength,
    kvBytesPerPosition: 2 * layers * kvHeads * (key + value),
    workBytes: 4 * 512 * (4 * width + 2 * hidden) + (16 << 20),
  };
}

const SIZES = [1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8];
const STRING = 8;
const ARRAY = 9;

function readMetadata(view: DataView, values: Map<string, number | string>): void {
  const little = true;
  if (view.getUint32(0, little) !== 0x46554747) return;
  const count = Number(view.getBigUint64(16, little));
  let at = 24;
  const long = () => {
    at += 8;
    return Number(view.getBigUint64(at - 8, little));
  };
  const text = () => {
    const length = long();
    if (at + length > view.byteLength) throw new RangeError('past the end');
    at += length;
    return new TextDecoder().decode(new Uint8Array(view.buffer, view.byteOffset + at - length, length));
  };
  for (let i = 0; i < count; i++) {
    const key = text();
    const type = view.getUint32(at, little);
    at += 4;
    if (type === STRING) {
      values.set(key, text());
    } else if (type === ARRAY) {
      const element = view.getUint32(at, little);
      at += 4;
      const length = long();
      if (element === STRING) for (let j = 0; j < length; j++) text();
      else at += length * (SIZES[element] || view.byteLength);
    } else {
      const size = SIZES[type];
      if (!size) return;
      const integer = type === 4 || type === 5 ? view.getUint32(at, little) : type === 10 ? long() : undefined;
      if (integer !== undefined) values.set(key, integer);
      if (type !== 10) at += size;
    }
    if (at > view.byteLength) throw new RangeError('past the end');
  }
}
