/** The addon in a real xterm.js, without a page. */

import assert from 'node:assert/strict';
import type { Duplex } from 'node:stream';
import test from 'node:test';
import xterm from '@xterm/headless';
import { serve } from '@sandbar/sandbox/serve';
import { type ConnectionState, SandboxAddon } from '@sandbar/sandbox/xterm';
import { sandboxOf } from './bench.js';

test('a terminal is shown in xterm.js, and again after its connection broke', { timeout: 60_000 }, async (t) => {
  const sandbox = sandboxOf(t);
  const tunnels: Duplex[] = [];
  const worker = await serve(
    {
      async fetch(request) {
        const response = await sandbox.terminal(request, { cols: 90, rows: 20 });
        const tunnel = (response as unknown as Record<symbol, { socket: Duplex } | undefined>)[Symbol.for('sandbar.connection')];
        if (tunnel) tunnels.push(tunnel.socket);
        return response;
      },
    },
    { port: 0 },
  );
  t.after(() => worker.close());

  const states: ConnectionState[] = [];
  const reached = (() => {
    let wake = () => {};
    return {
      tell: () => wake(),
      async state(wanted: ConnectionState, times: number) {
        while (states.filter((state) => state === wanted).length < times) await new Promise<void>((resolve) => (wake = resolve));
      },
    };
  })();
  const terminal = new xterm.Terminal({ cols: 90, rows: 20, allowProposedApi: true });
  const addon = new SandboxAddon({
    getWebSocketUrl: ({ sandboxId }) => `${worker.url.replace('http', 'ws')}/terminal/${sandboxId}`,
    onStateChange(state) {
      states.push(state);
      reached.tell();
    },
  });
  assert.throws(() => addon.connect({ sandboxId: sandbox.id }), /loadAddon/);
  terminal.loadAddon(addon);
  t.after(() => terminal.dispose());
  const screen = () => Array.from({ length: terminal.buffer.active.length }, (_, at) => terminal.buffer.active.getLine(at)!.translateToString(true)).join('\n');
  const shows = async (text: string) => {
    while (!screen().includes(text)) await new Promise<void>((resolve) => { const { dispose } = terminal.onWriteParsed(() => { dispose(); resolve(); }); });
  };

  addon.connect({ sandboxId: sandbox.id });
  await reached.state('connected', 1);
  terminal.resize(100, 30);
  terminal.input('stty size; echo $((6 * 7))fold\n');
  await shows('30 100');
  await shows('42fold');
  tunnels[0]!.destroy();
  await reached.state('connected', 2);
  await shows('42fold');
  terminal.input('echo $((7 * 7))fold\n');
  await shows('49fold');
  assert.equal(addon.state, 'connected');
  terminal.input('exit\n');
  await reached.state('disconnected', 2);
  assert.deepEqual(states, ['connecting', 'connected', 'disconnected', 'connecting', 'connected', 'disconnected']);
  assert.equal(addon.sandboxId, undefined);
});
