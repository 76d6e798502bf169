/** An addon for xterm.js that shows a terminal of a sandbox, over a WebSocket that a Worker of yours answers with `sandbox.terminal(request)`. */

/** Where the addon is: nothing is shown, it is being connected, it is shown. */
export type ConnectionState = 'disconnected' | 'connecting' | 'connected';

/** Which terminal. */
export interface ConnectionTarget {
  sandboxId: string;
  sessionId?: string;
}

export interface SandboxAddonOptions {
  /** The URL of your Worker's WebSocket. `origin` is that of the page, with `ws:` or `wss:`. */
  getWebSocketUrl(target: ConnectionTarget & { origin: string }): string;
  /** Connect again when the connection breaks; true unless given. */
  reconnect?: boolean;
  /** Called when `state` has changed, with the error if there was one. */
  onStateChange?(state: ConnectionState, error?: Error): void;
}

interface Disposable {
  dispose(): void;
}

/** What the addon uses of a terminal of xterm.js. */
export interface XtermLike {
  readonly cols: number;
  readonly rows: number;
  write(data: string | Uint8Array): void;
  reset(): void;
  onData(listener: (data: string) => void): Disposable;
  onResize(listener: (size: { cols: number; rows: number }) => void): Disposable;
}

/** Milliseconds before connecting again, doubled for each try without success. */
const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 30_000;

const encoder = new TextEncoder();

/** `terminal.loadAddon(new SandboxAddon({ getWebSocketUrl }))`, then `addon.connect({ sandboxId })`. */
export class SandboxAddon {
  readonly #options: SandboxAddonOptions;
  #terminal: XtermLike | undefined;
  #listeners: Disposable[] = [];
  #socket: WebSocket | undefined;
  #target: ConnectionTarget | undefined;
  #state: ConnectionState = 'disconnected';
  #timer: ReturnType<typeof setTimeout> | undefined;
  #failures = 0;

  constructor(options: SandboxAddonOptions) {
    this.#options = options;
  }

  get state(): ConnectionState {
    return this.#state;
  }

  get sandboxId(): string | undefined {
    return this.#target?.sandboxId;
  }

  get sessionId(): string | undefined {
    return this.#target?.sessionId;
  }

  /** Called by xterm.js. */
  activate(terminal: XtermLike): void {
    this.#terminal = terminal;
    this.#listeners = [
      terminal.onData((data) => {
        if (this.#state === 'connected') this.#socket!.send(encoder.encode(data));
      }),
      terminal.onResize(() => this.#resize()),
    ];
  }

  /** Called by xterm.js. */
  dispose(): void {
    this.disconnect();
    for (const listener of this.#listeners.splice(0)) listener.dispose();
    this.#terminal = undefined;
  }

  /** Shows this terminal, in place of the one that is shown. */
  connect(target: ConnectionTarget): void {
    if (!this.#terminal) throw new Error('the addon is not loaded: call terminal.loadAddon() first');
    this.disconnect();
    this.#target = { ...target };
    this.#failures = 0;
    this.#open();
  }

  /** Leaves; the program runs on. */
  disconnect(): void {
    clearTimeout(this.#timer);
    this.#target = undefined;
    const socket = this.#socket;
    this.#socket = undefined;
    socket?.close();
    this.#become('disconnected');
  }

  #open(): void {
    const { location } = globalThis as { location?: { origin?: string } };
    const origin = (location?.origin ?? '').replace(/^http/, 'ws');
    this.#become('connecting');
    const socket = new WebSocket(this.#options.getWebSocketUrl({ ...this.#target!, origin }));
    this.#socket = socket;
    socket.binaryType = 'arraybuffer';
    let error: Error | undefined;
    socket.addEventListener('open', () => {
      if (socket !== this.#socket) return;
      this.#failures = 0;
      // The server shows again what was shown before.
      this.#terminal!.reset();
      this.#become('connected');
      this.#resize();
    });
    socket.addEventListener('message', ({ data }: MessageEvent<string | ArrayBuffer>) => {
      if (socket !== this.#socket) return;
      if (typeof data !== 'string') return this.#terminal!.write(new Uint8Array(data));
      const event = JSON.parse(data) as { type: string; message?: string };
      // The program has ended: there is nothing to come back to.
      if (event.type === 'exit') this.disconnect();
      if (event.type === 'error') error = new Error(event.message ?? 'the terminal failed');
    });
    socket.addEventListener('error', () => (error ??= new Error('the connection broke')));
    socket.addEventListener('close', () => {
      if (socket === this.#socket) this.#broken(error);
    });
  }

  #broken(error: Error | undefined): void {
    this.#socket = undefined;
    this.#become('disconnected', error);
    // The callback may have ended it.
    if (this.#options.reconnect === false || !this.#target) return;
    const pause = Math.min(FIRST_PAUSE_MS * 2 ** this.#failures++, LONGEST_PAUSE_MS);
    // Not all at once: many pages lose one server in one moment.
    this.#timer = setTimeout(() => this.#open(), pause * (0.5 + Math.random() / 2));
  }

  #resize(): void {
    if (this.#state !== 'connected') return;
    const { cols, rows } = this.#terminal!;
    this.#socket!.send(JSON.stringify({ type: 'resize', cols, rows }));
  }

  #become(state: ConnectionState, error?: Error): void {
    if (state === this.#state) return;
    this.#state = state;
    this.#options.onStateChange?.(state, error);
  }
}
