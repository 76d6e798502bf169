declare module 'cloudflare:workers' {
  export const env: Record<string, unknown> | undefined;
}

declare module 'cloudflare:sockets' {
  export interface Socket {
    readonly readable: ReadableStream<Uint8Array>;
    readonly writable: WritableStream<Uint8Array>;
    readonly opened: Promise<unknown>;
    close(): Promise<void>;
  }
  export function connect(address: { hostname: string; port: number }, options: { secureTransport: 'on' | 'off' }): Socket;
}
