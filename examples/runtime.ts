/** Where the examples run: on Node by `serve`, and in workerd, bundled as wrangler bundles. */

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { serve } from '@sandbar/sandbox/serve';

/** An example that runs. */
export interface Running {
  url: string;
  runScheduled(cron: string): Promise<void>;
  /** What it has put into a store, by its name among the bindings. */
  kept(binding: string): Promise<Map<string, Buffer>>;
  close(): Promise<void>;
}

export interface Runtime {
  name: string;
  /** Starts an example with these variables. `UUID` is what each random id of it is, in place of one. */
  start(name: string, worker: object, vars: Record<string, string>): Promise<Running>;
}

/** Stores that the examples have: pairs, objects. */
const PAIRS = ['KV'];
const OBJECTS = ['REPORTS', 'ARTIFACTS'];

class Store {
  readonly entries = new Map<string, Buffer>();
  async get(key: string): Promise<string | null> {
    return this.entries.get(key)?.toString() ?? null;
  }
  async put(key: string, value: string | Uint8Array): Promise<void> {
    this.entries.set(key, Buffer.from(value as Uint8Array));
  }
}

const state = process.env.SANDBAR_STATE_DIR ?? '/var/lib/sandbar';
const told = (variable: string, file: string) => process.env[variable] ?? readFileSync(`${state}/${file}`, 'utf8').trim();
const directory = (name: string) => fileURLToPath(new URL(`../${name}/`, import.meta.url).href);

const node: Runtime = {
  name: 'on Node',
  async start(name, worker, { UUID, ...vars }) {
    const stores = Object.fromEntries([...PAIRS, ...OBJECTS].map((binding) => [binding, new Store()]));
    const random = crypto.randomUUID;
    if (UUID) crypto.randomUUID = () => UUID as never;
    const server = await serve(worker, { port: 0, config: directory(name), env: { ...vars, ...stores } });
    return {
      url: server.url,
      runScheduled: (cron) => server.runScheduled(cron),
      kept: async (binding) => stores[binding]!.entries,
      async close() {
        crypto.randomUUID = random;
        await server.close();
      },
    };
  },
};

const workerd: Runtime = {
  name: 'in workerd',
  async start(name, _worker, { UUID, ...vars }) {
    const { Miniflare } = createRequire(new URL('../../tests/samples/', import.meta.url).href)('miniflare');
    const { build } = createRequire(new URL('../../clients/typescript/', import.meta.url).href)('esbuild');
    const bundle = await build({
      entryPoints: [`${directory(name)}index.ts`],
      bundle: true,
      write: false,
      format: 'esm',
      target: 'es2022',
      conditions: ['workerd', 'worker', 'browser'],
      external: ['cloudflare:*', 'node:*'],
      ...(UUID && { define: { 'crypto.randomUUID': 'uuid' }, banner: { js: `const uuid = () => ${JSON.stringify(UUID)};` } }),
    });
    const miniflare = new Miniflare({
      modules: true,
      script: bundle.outputFiles[0].text,
      compatibilityDate: '2025-10-15',
      compatibilityFlags: ['nodejs_compat'],
      durableObjects: { Sandbox: { className: 'Sandbox', useSQLite: true } },
      kvNamespaces: PAIRS,
      r2Buckets: OBJECTS,
      bindings: { ...vars, SANDBAR_URL: told('SANDBAR_URL', 'endpoint'), SANDBAR_KEY: told('SANDBAR_KEY', 'key'), ANTHROPIC_BASE_URL: process.env.ANTHROPIC_BASE_URL ?? '' },
    });
    const { origin } = await miniflare.ready;
    return {
      url: origin,
      async runScheduled(cron) {
        const { outcome } = await (await miniflare.getWorker()).scheduled({ cron });
        if (outcome !== 'ok') throw new Error(`the trigger ended with ${outcome}`);
      },
      async kept(binding) {
        const isPairs = PAIRS.includes(binding);
        const store = isPairs ? await miniflare.getKVNamespace(binding) : await miniflare.getR2Bucket(binding);
        const listed = await store.list();
        const keys: string[] = (isPairs ? listed.keys.map((each: { name: string }) => each.name) : listed.objects.map((each: { key: string }) => each.key)) as string[];
        const values = keys.map(async (key): Promise<[string, Buffer]> => [key, Buffer.from(isPairs ? await store.get(key, 'arrayBuffer') : await (await store.get(key)).arrayBuffer())]);
        return new Map(await Promise.all(values));
      },
      close: () => miniflare.dispose(),
    };
  },
};

export const RUNTIMES: Runtime[] = [node, workerd];
