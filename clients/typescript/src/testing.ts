/** Sandboxes for tests of programs that use them: of a real server. */

import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { randomInt, randomUUID } from 'node:crypto';
import { rmSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { platform } from '#platform';
import { type BindingOptions } from './binding.js';
import { errorOf } from './error.js';
import { type Sandbox, type SandboxOptions, getSandbox } from './sandbox.js';

export interface TestServerOptions {
  /** The program; `SANDBAR_BIN`, else `sandbar` on `PATH`, unless given. */
  binary?: string;
  /** Directory with an image store (`images/`) to use, made by an earlier server; none unless given. */
  stateDir?: string;
  /** The image of sandboxes that name none: `host`, which is the machine's own programs, unless given. */
  image?: string;
  /** Further settings of the server, as environment variables: `{ SANDBAR_ALLOWED_ORIGINS: '...' }`. */
  settings?: Record<string, string>;
  /** Milliseconds that the server may take to be ready: 30,000 unless given. */
  readyMs?: number;
}

export interface TestSandboxOptions extends TestServerOptions, SandboxOptions {
  /** The sandbox's id; generated unless given. */
  id?: string;
  /** Start a server of the test's own also where one can be found. */
  ownServer?: boolean;
}

/** A server that was started for tests. */
export interface TestServer {
  /** What `getSandbox` takes for it. */
  readonly binding: Required<Pick<BindingOptions, 'url' | 'key'>>;
  /** Destroys its sandboxes and ends it. */
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** Milliseconds that a server may take to be ready: it looks for what an earlier one left. */
const READY_MS = 30_000;

/** Tries, because a random place may be taken. */
const TRIES = 5;

/** Milliseconds that what is left may take to go, when the program ends without having closed its server. */
const LEAVE_MS = 30_000;

/** Starts a server on a free port, with a state directory and a name of its own. Needs root. */
export async function startTestServer(options: TestServerOptions = {}): Promise<TestServer> {
  let failure: unknown;
  for (let attempt = 0; attempt < TRIES; attempt++) {
    try {
      return await start(options);
    } catch (error) {
      failure = error;
      if ((error as { code?: string }).code !== 'SERVER_ENDED') break;
    }
  }
  throw failure;
}

async function start(options: TestServerOptions): Promise<TestServer> {
  const binary = options.binary ?? (await platform.variable('SANDBAR_BIN')) ?? 'sandbar';
  const state = options.stateDir ?? (await mkdtemp(join(tmpdir(), 'sandbar-test-')));
  // Servers of one machine must not share names, addresses or user ids.
  const place = randomInt(64);
  const env = {
    PATH: process.env.PATH ?? '',
    SANDBAR_STATE_DIR: state,
    SANDBAR_LISTEN: '127.0.0.1:0',
    SANDBAR_NAME: `js${place}`,
    SANDBAR_NETWORK_SUBNET: `10.214.${64 + place}.0/24`,
    SANDBAR_UID_BASE: String(0x2000_0000 + place * (64 << 16)),
    SANDBAR_MAX_SANDBOXES: '64',
    SANDBAR_DEFAULT_IMAGE: options.image ?? 'host',
    ...options.settings,
  };
  const run = (args: string[]) => spawn(binary, args, { env, stdio: ['ignore', 'ignore', 'pipe'] });
  const clean = async () => {
    if (!options.stateDir) await rm(state, { recursive: true, force: true });
  };
  const server = run(['serve']);
  const ended = new Promise<void>((resolve) => server.once('exit', () => resolve()));
  try {
    await ready(server, binary, options.readyMs ?? READY_MS);
  } catch (error) {
    // One that ended by itself has left what it made; not so one that was killed while it started. A
    // directory that was given may be that of another server, which is why ours ended.
    if ((error as { code?: string }).code === 'SERVER_NOT_READY') {
      await ended;
      await down(run);
    }
    await clean();
    throw error;
  }
  // Who ends without closing it leaves nothing behind.
  const leave = () => {
    spawnSync(binary, ['down', '--destroy'], { env, stdio: 'ignore', timeout: LEAVE_MS });
    if (!options.stateDir) rmSync(state, { recursive: true, force: true });
  };
  process.once('exit', leave);
  server.unref();
  (server.stderr as unknown as { unref(): void }).unref();
  const { url, key } = await platform.localServer(state);
  const close = async () => {
    process.off('exit', leave);
    await down(run);
    server.ref();
    server.kill('SIGTERM');
    await ended;
    await clean();
  };
  return { binding: { url: url!, key: key! }, close, [Symbol.asyncDispose]: close };
}

async function down(run: (args: string[]) => ChildProcess): Promise<void> {
  const down = run(['down', '--destroy']);
  down.stderr!.resume();
  await new Promise((resolve) => down.once('exit', resolve));
}

function ready(server: ChildProcess, binary: string, readyMs: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const lines: string[] = [];
    const refuse = (code: string, why: string) => {
      clearTimeout(timer);
      reject(errorOf(code, why, { operation: 'start a server for tests', context: { log: lines.slice(-20) } }));
    };
    const timer = setTimeout(() => {
      server.kill('SIGKILL');
      refuse('SERVER_NOT_READY', `the server was not ready within ${readyMs} ms:\n${lines.slice(-5).join('\n')}`);
    }, readyMs);
    server.once('error', (error) => refuse('NO_SERVER', `${binary} cannot be started: ${error.message}. Set SANDBAR_BIN to the program.`));
    server.once('exit', () => refuse('SERVER_ENDED', `the server did not start:\n${lines.slice(-5).join('\n')}`));
    createInterface({ input: server.stderr! }).on('line', (line) => {
      if (lines.length < 100) lines.push(line);
      if (!line.includes('serving')) return;
      clearTimeout(timer);
      resolve();
    });
  });
}

let shared: Promise<TestServer> | undefined;
let users = 0;

/**
 * A sandbox of a test's own: of the server that the environment names or that runs on this machine,
 * else of one that is started for it and ends with the last such sandbox.
 *
 * `await using sandbox = await createTestSandbox()`, or `destroy()` it.
 */
export async function createTestSandbox(options: TestSandboxOptions = {}): Promise<Sandbox> {
  const { id = `test-${randomUUID()}`, ownServer, binary, stateDir, settings, ...rest } = options;
  const named = (await platform.variable('SANDBAR_URL')) ?? (await platform.localServer(undefined)).url;
  if (named && !ownServer) return getSandbox(undefined, id, rest);

  users++;
  shared ??= startTestServer({ ...(binary ? { binary } : {}), ...(stateDir ? { stateDir } : {}), ...(settings ? { settings } : {}) });
  let server: TestServer;
  try {
    server = await shared;
  } catch (error) {
    users--;
    shared = undefined;
    throw error;
  }
  const sandbox = getSandbox(server.binding, id, rest);
  const destroy = sandbox.destroy.bind(sandbox);
  let gone = false;
  sandbox.destroy = async () => {
    await destroy();
    if (gone) return;
    gone = true;
    if (--users > 0) return;
    shared = undefined;
    await server.close();
  };
  return sandbox;
}
