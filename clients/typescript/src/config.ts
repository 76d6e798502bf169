/** What a Worker's configuration files say: variables, bindings of sandboxes, cron triggers. */

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

export interface WorkerConfig {
  vars: Record<string, unknown>;
  /** Names of the bindings of Durable Objects. */
  bindings: string[];
  crons: string[];
  /** The Worker's file. */
  main?: string;
}

const optional = (file: string): Promise<string | undefined> =>
  readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    throw error;
  });

/** JSON with comments and commas after the last element. */
export function parseJsonc(text: string): any {
  // Texts are matched first, so that what looks like a comment in one stays.
  const plain = text.replace(/("(?:\\.|[^"\\])*")|\/\/[^\n]*|\/\*[\s\S]*?\*\//g, (_all, string?: string) => string ?? '');
  return JSON.parse(plain.replace(/("(?:\\.|[^"\\])*")|,(?=\s*[}\]])/g, (_all, string?: string) => string ?? ''));
}

/** The part of TOML that a Worker's configuration is written in: tables, lists of tables, plain values. */
export function parseToml(text: string): any {
  const root: Record<string, any> = {};
  let table = root;
  const descend = (path: string, list: boolean): Record<string, any> => {
    const names = path.split('.').map((name) => name.trim().replace(/^["']|["']$/g, ''));
    const last = names.pop()!;
    let at = root;
    for (const name of names) {
      const next = (at[name] ??= {});
      at = Array.isArray(next) ? next.at(-1) : next;
    }
    if (!list) return (at[last] ??= {});
    const item = {};
    (at[last] ??= []).push(item);
    return item;
  };
  // A list may go over several lines.
  const lines = text.replace(/\[[^\][]*\n[^\]]*\]/g, (list) => list.replace(/#[^\n]*/g, '').replace(/\n/g, ' ')).split('\n');
  for (const [number, line] of lines.entries()) {
    const bare = line.replace(/("(?:\\.|[^"\\])*"|'[^']*')|#.*$/g, (_all, string?: string) => string ?? '').trim();
    if (bare === '') continue;
    const head = /^\[(\[?)([^\]]+)\]?\]$/.exec(bare);
    const pair = /^([\w"'.-]+)\s*=\s*(.+)$/.exec(bare);
    if (head && !pair) table = descend(head[2]!, head[1] === '[');
    else if (pair) table[pair[1]!.replace(/^["']|["']$/g, '')] = tomlValue(pair[2]!, number + 1);
    else throw new SyntaxError(`line ${number + 1} of wrangler.toml is not understood: ${line.trim()}`);
  }
  return root;
}

function tomlValue(text: string, line: number): unknown {
  const literal = text.replace(/'([^']*)'/g, (_all, inner: string) => JSON.stringify(inner));
  const inline = literal.replace(/([{,]\s*)([\w-]+)\s*=/g, '$1"$2":').replace(/,(?=\s*[}\]])/g, '');
  try {
    return JSON.parse(/^[{]/.test(literal) ? inline : literal.replace(/,(?=\s*\])/g, '').replace(/^([+-]?[\d_]+)$/, (number) => number.replaceAll('_', '')));
  } catch {
    throw new SyntaxError(`the value in line ${line} of wrangler.toml is not understood: ${text}`);
  }
}

/** Lines `NAME=value`; quotes and comments as in other such files. */
export function parseDotenv(text: string): Record<string, string> {
  const values: Record<string, string> = {};
  const entry = /^[ \t]*(?:export[ \t]+)?([\w.-]+)[ \t]*=[ \t]*(?:"((?:\\.|[^"\\])*)"|'([^']*)'|`([^`]*)`|([^\n#]*))/gm;
  for (const [, name, double, single, back, bare] of text.matchAll(entry)) {
    values[name!] = double !== undefined ? double.replace(/\\n/g, '\n').replace(/\\(.)/g, '$1') : (single ?? back ?? bare!.trim());
  }
  return values;
}

/** Reads `wrangler.jsonc`, `.json` or `.toml`, and `.dev.vars` or `.env`, in `dir`. */
export async function readConfig(dir: string): Promise<WorkerConfig> {
  const jsonc = (await optional(join(dir, 'wrangler.jsonc'))) ?? (await optional(join(dir, 'wrangler.json')));
  const toml = jsonc === undefined ? await optional(join(dir, 'wrangler.toml')) : undefined;
  const config = jsonc !== undefined ? parseJsonc(jsonc) : toml !== undefined ? parseToml(toml) : {};
  const secrets = (await optional(join(dir, '.dev.vars'))) ?? (await optional(join(dir, '.env'))) ?? '';
  const found: WorkerConfig = {
    vars: { ...config.vars, ...parseDotenv(secrets) },
    bindings: (config.durable_objects?.bindings ?? []).map(({ name }: { name: string }) => name),
    crons: config.triggers?.crons ?? [],
  };
  if (typeof config.main === 'string') found.main = config.main;
  return found;
}
