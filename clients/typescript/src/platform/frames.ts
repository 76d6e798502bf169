/** Frames of RFC 6455, as a client needs them: no extensions. */

/** Bytes of a message at most: what a Workers runtime takes, and twice a terminal's replay. */
const MESSAGE_BYTES = 1024 * 1024;

export interface Receiver {
  message(data: string | Uint8Array): void;
  ping(payload: Uint8Array): void;
  close(): void;
}

/** Takes bytes as they come, tells messages when they are whole. */
export class Frames {
  #pending: Uint8Array = new Uint8Array(0);
  #parts: Uint8Array[] = [];
  #bytes = 0;
  #opcode = 0;

  constructor(readonly receiver: Receiver) {}

  read(chunk: Uint8Array): void {
    this.#pending = this.#pending.length === 0 ? chunk : join([this.#pending, chunk]);
    while (this.#next());
  }

  #next(): boolean {
    const bytes = this.#pending;
    if (bytes.length < 2) return false;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    let length = bytes[1]! & 127;
    let at = 2;
    if (length === 126) {
      if (bytes.length < 4) return false;
      length = view.getUint16(2);
      at = 4;
    } else if (length === 127) {
      if (bytes.length < 10) return false;
      length = Number(view.getBigUint64(2));
      at = 10;
    }
    if (length + this.#bytes > MESSAGE_BYTES) throw new Error('a message of the server is too long');
    if (bytes.length < at + length) return false;
    this.#pending = bytes.subarray(at + length);
    this.#take(bytes[0]!, bytes.slice(at, at + length));
    return true;
  }

  #take(first: number, payload: Uint8Array): void {
    const opcode = first & 15;
    if (opcode === 9) return this.receiver.ping(payload);
    if (opcode === 8) return this.receiver.close();
    if (opcode > 2) return;
    if (opcode !== 0) this.#opcode = opcode;
    this.#parts.push(payload);
    this.#bytes += payload.length;
    if ((first & 128) === 0) return;
    const whole = this.#parts.length === 1 ? payload : join(this.#parts);
    this.#parts = [];
    this.#bytes = 0;
    this.receiver.message(this.#opcode === 1 ? new TextDecoder().decode(whole) : whole);
  }
}

export function join(parts: Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** One whole message of a client, masked as clients must. */
export function encodeFrame(opcode: number, payload: Uint8Array, mask: Uint8Array): Uint8Array {
  const length = payload.length;
  const head = length < 126 ? 2 : length < 65_536 ? 4 : 10;
  const frame = new Uint8Array(head + 4 + length);
  const view = new DataView(frame.buffer);
  frame[0] = 128 | opcode;
  frame[1] = 128 | (head === 2 ? length : head === 4 ? 126 : 127);
  if (head === 4) view.setUint16(2, length);
  if (head === 10) view.setBigUint64(2, BigInt(length));
  frame.set(mask, head);
  for (let at = 0; at < length; at++) frame[head + 4 + at] = payload[at]! ^ mask[at & 3]!;
  return frame;
}
