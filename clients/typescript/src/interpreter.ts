/** The code interpreter: contexts that keep variables, and what code shows. */

import { SandboxSecurityError } from './error.js';
import { type Env, isToldEnd, newKey } from './exec.js';
import { COME_BACK_MS, resumed } from './resume.js';
import { type Abortable, type Scope, milliseconds, now, variables } from './scope.js';
import { eventStream, ownEvents } from './sse.js';
import type * as wire from './wire.js';

/** What a context understands. */
export type Language = 'python' | 'javascript' | 'typescript' | 'bash';

/** Options of `createCodeContext`. */
export interface CreateContextOptions extends Abortable {
  /** Python unless given. Also `python3`, `js`, `node`, `ts`, `sh`. */
  language?: Language | (string & {});
  /** Where it starts; `/workspace` unless given. */
  cwd?: string;
  /** Variables of its interpreter, over those of the sandbox. */
  envVars?: Env;
  /** The same as `envVars`. */
  env?: Env;
  /** Milliseconds that its runs may take which name no time; a minute unless given. */
  timeout?: number;
}

/** A context. */
export interface CodeContext {
  id: string;
  language: Language;
  cwd: string;
  createdAt: Date;
  lastUsed: Date;
}

/** What was written, a piece at a time. */
export interface OutputMessage {
  text: string;
  /** Milliseconds since 1970. */
  timestamp: number;
}

/** Options of `runCode`. */
export interface RunCodeOptions extends Abortable {
  /** Where to run: a context or its id; that of `language` which everybody shares unless given. */
  context?: CodeContext | { id: string } | string;
  /** That of the context to run in, where none is named; Python unless given. */
  language?: Language | (string & {});
  /** Variables of this run alone. */
  envVars?: Env;
  /** The same as `envVars`. */
  env?: Env;
  /** Milliseconds until it is interrupted; the context's unless given. */
  timeout?: number;
  /** Called with each piece of what it writes. */
  onStdout?: (output: OutputMessage) => void | Promise<void>;
  /** Called with each piece of what it complains. */
  onStderr?: (output: OutputMessage) => void | Promise<void>;
    /** Called with each result. */
  onResult?: (result: Result) => void | Promise<void>;
    /** Called with the error that ended it. */
  onError?: (error: ExecutionError) => void | Promise<void>;
  /** Accepted: callbacks are called as things happen in any case. */
  stream?: boolean;
  /** Called with each piece of either output. */
  onOutput?: (data: string) => void;
  /**
   * Makes the call safe to repeat: calls with one key and one code run it once, and each returns its
   * result. When the connection breaks, the call comes back by itself. `runCodeStream` has one anyway.
   */
  idempotencyKey?: string;
}

/** Why code failed. */
export interface ExecutionError {
  /** The exception's class, as `ZeroDivisionError`; `TimeoutError` when its time was over. */
  name: string;
  message: string;
  /** The same as `message`. */
  value: string;
  traceback: string[];
  /** From 1. */
  lineNumber?: number;
  /** Why, for programs: `exception`, `timeout`, `interrupted`, `crashed`, ... */
  kind?: string;
}

const FORMATS = ['text', 'html', 'png', 'jpeg', 'svg', 'latex', 'markdown', 'javascript', 'json', 'chart', 'data'] as const;

type Format = (typeof FORMATS)[number];

/** Something that code showed, in every form that it has. Images are base64. */
export interface Result {
  text?: string;
  html?: string;
  png?: string;
  jpeg?: string;
  svg?: string;
  latex?: string;
  markdown?: string;
  javascript?: string;
  json?: any;
  /** What a plot shows, for programs. */
  chart?: any;
  /** Records of a data frame, for programs. */
  data?: any;
  /** It is the value of the last expression. */
  isMain?: boolean;
  /** The forms that there are. */
  formats(): Format[];
}

/** What code did. Code that fails is a result: see `error`. */
export interface ExecutionResult {
  code: string;
  /** Pieces of what it wrote; put together they are what was written. */
  logs: { stdout: string[]; stderr: string[] };
  results: Result[];
  error?: ExecutionError;
  executionCount?: number;
  /** There is no `error`. */
  success: boolean;
  /** What it wrote to stdout, and the text of its last value. */
  output: string;
  /** The forms of all its results. */
  formats: Format[];
  /** The first result of each form. */
  outputs: { [format in Format]?: any };
  contextId?: string;
  /** What the network policy refused to the sandbox meanwhile, if the code failed and that is something. */
  refused?: wire.Refused;
}

/** The same as `ExecutionResult`. */
export type Execution = ExecutionResult;

const NAMES: Record<string, Language> = {
  python: 'python',
  python3: 'python',
  py: 'python',
  javascript: 'javascript',
  js: 'javascript',
  node: 'javascript',
  typescript: 'typescript',
  ts: 'typescript',
  bash: 'bash',
  sh: 'bash',
  shell: 'bash',
};

function languageOf(name: string): Language {
  const language = NAMES[name.toLowerCase()];
  if (!language) {
    throw new SandboxSecurityError(`Unsupported language '${name}': python, javascript, typescript and bash are known`, 'INVALID_LANGUAGE');
  }
  return language;
}

const contextOf = ({ id, language, cwd, createdAtMs, lastUsedMs }: wire.Context): CodeContext => ({
  id,
  language,
  cwd,
  createdAt: new Date(createdAtMs),
  lastUsed: new Date(lastUsedMs),
});

export async function createContext(scope: Scope, options: CreateContextOptions = {}): Promise<CodeContext> {
  const json = {
    language: languageOf(options.language ?? 'python'),
    cwd: options.cwd,
    env: variables(options.envVars ?? options.env),
    timeoutMs: milliseconds(options.timeout),
  };
  const call = { attempt: 'make a context', json, signal: options.signal };
  return contextOf(await scope.json<wire.Context>('POST', '/contexts', call));
}

export async function listContexts(scope: Scope, { signal }: Abortable = {}): Promise<CodeContext[]> {
  const call = { attempt: 'list contexts', signal, repeatable: true };
  return (await scope.json<wire.ContextList>('GET', '/contexts', call)).contexts.map(contextOf);
}

const idOf = (context: string | { id: string }) => encodeURIComponent(typeof context === 'string' ? context : context.id);

export async function deleteContext(scope: Scope, context: string | { id: string }, { signal }: Abortable = {}): Promise<void> {
  await scope.done('DELETE', `/contexts/${idOf(context)}`, { attempt: 'delete a context', signal });
}

/** Interrupts what a context runs; says whether it ran anything. */
export async function interruptContext(scope: Scope, context: string | { id: string }, { signal }: Abortable = {}): Promise<boolean> {
  const call = { attempt: 'interrupt a context', signal, repeatable: true };
  return (await scope.json<wire.Interrupted>('POST', `/contexts/${idOf(context)}/interrupt`, call)).interrupted;
}

/** Starts a context afresh. */
export async function restartContext(scope: Scope, context: string | { id: string }, { signal }: Abortable = {}): Promise<CodeContext> {
  const call = { attempt: 'restart a context', signal };
  return contextOf(await scope.json<wire.Context>('POST', `/contexts/${idOf(context)}/restart`, call));
}

/** Options of `warmCodeContexts`. */
export interface WarmOptions extends Abortable {
  /** Modules of Python to import beside NumPy, pandas and Matplotlib. */
  imports?: string[];
}

/** What was kept: bytes on disk, and the milliseconds that it took. */
export type WarmStart = wire.WarmStart;

/** Keeps a started Python, from which contexts go on within milliseconds. */
export async function warm(scope: Scope, { imports, signal }: WarmOptions = {}): Promise<WarmStart> {
  const json: wire.WarmContexts = imports ? { imports } : {};
  return scope.json<wire.WarmStart>('POST', '/contexts:warm', { attempt: 'warm contexts', json, signal, repeatable: true });
}

interface Run {
  code: string;
  options: RunCodeOptions;
  /** With it the run goes on when its connection breaks. */
  key: string | undefined;
}

const ATTEMPT = 'run code';

function open(scope: Scope, { code, options, key }: Run, after: string | undefined, signal = options.signal): Promise<Response> {
  const { context } = options;
  const json = {
    code,
    language: options.language === undefined ? undefined : languageOf(options.language),
    env: variables(options.envVars ?? options.env),
    timeoutMs: milliseconds(options.timeout),
  };
  const id = typeof context === 'object' ? context.id : context;
  const route = id === undefined ? '/run' : `/contexts/${encodeURIComponent(id)}/run`;
  const headers: Record<string, string> = { accept: 'text/event-stream' };
  if (key !== undefined) headers['idempotency-key'] = key;
  if (after !== undefined) headers['last-event-id'] = after;
  return scope.send('POST', route, { attempt: ATTEMPT, json, headers, signal, repeatable: key !== undefined });
}

/** As the events of a command, but giving up interrupts: what the context keeps is not to be lost. */
async function* follow(scope: Scope, run: Run, first?: Response): AsyncGenerator<wire.RunEvent, void, undefined> {
  let processId: string | undefined;
  let over = false;
  const stream = {
    attempt: ATTEMPT,
    signal: run.options.signal,
    open: (after: string | undefined) => open(scope, run, after),
    isEnd: (event: wire.RunEvent) => event.type === 'end',
    resumes: run.key !== undefined,
  };
  try {
    for await (const event of resumed(stream, first)) {
      if (event.type === 'start') {
        if (processId) continue;
        processId = event.processId;
      }
      over = event.type === 'end';
      yield event;
    }
  } catch (error) {
    over ||= isToldEnd(error);
    throw error;
  } finally {
    if (!over && run.key) interrupt(scope, run, processId);
  }
}

/** Ends a run that waits for a caller who does not come back. */
function interrupt(scope: Scope, run: Run, known: string | undefined): void {
  const end = async () => {
    let id = known;
    if (!id) {
      const response = await open(scope, run, undefined, AbortSignal.timeout(COME_BACK_MS));
      for await (const { data } of ownEvents(response.body!)) {
        const event = JSON.parse(data) as wire.RunEvent;
        if (event.type === 'start') id = event.processId;
        break;
      }
    }
    const call = { attempt: 'interrupt code', json: { signal: 'SIGINT' } };
    if (id) await scope.done('POST', `/processes/${encodeURIComponent(id)}/kill`, call);
  };
  // Nobody waits for it; where it fails the server ends the run after its time of grace.
  end().catch(() => {});
}

function resultOf(event: Extract<wire.RunEvent, { type: 'result' }>): Result {
  const result: Record<string, unknown> = {};
  for (const format of FORMATS) if (event[format] !== undefined && event[format] !== null) result[format] = event[format];
  if (event.isMain) result.isMain = true;
  // A list that can be called: older documents have `formats` as a list.
  Object.defineProperty(result, 'formats', { value: () => FORMATS.filter((format) => format in result) });
  return result as unknown as Result;
}

function errorFrom({ name, value, traceback, lineNumber, kind }: wire.CodeError): ExecutionError {
  const error: ExecutionError = { name, message: value, value, traceback };
  if (lineNumber) error.lineNumber = lineNumber;
  error.kind = kind;
  return error;
}

/** `runCode(code, options)`, or as older documents have it `runCode(contextId, code, options)`. */
export async function runCode(scope: Scope, first: string, second?: RunCodeOptions | string, third?: RunCodeOptions): Promise<ExecutionResult> {
  const code = typeof second === 'string' ? second : first;
  const options: RunCodeOptions = typeof second === 'string' ? { ...third, context: first } : (second ?? {});
  const logs = { stdout: [] as string[], stderr: [] as string[] };
  const results: Result[] = [];
  const shown = new Map<string, number>();
  let error: ExecutionError | undefined;
  let [executionCount, contextId]: [number | undefined, string | undefined] = [undefined, undefined];
  let refused: wire.Refused | undefined;
  for await (const event of follow(scope, { code, options, key: options.idempotencyKey })) {
    switch (event.type) {
      case 'start':
        contextId = event.contextId;
        break;
      case 'stdout':
      case 'stderr': {
        logs[event.type].push(event.data);
        const told = { text: event.data, timestamp: event.timeMs };
        await (event.type === 'stdout' ? options.onStdout : options.onStderr)?.(told);
        options.onOutput?.(event.data);
        break;
      }
      case 'result': {
        const result = resultOf(event);
        const before = event.isUpdate && event.displayId ? shown.get(event.displayId) : undefined;
        if (before !== undefined) results[before] = result;
        else {
          if (event.displayId) shown.set(event.displayId, results.length);
          results.push(result);
        }
        await options.onResult?.(result);
        break;
      }
      case 'error':
        error = errorFrom(event);
        await options.onError?.(error);
        break;
      case 'end':
        executionCount = event.executionCount;
        refused = event.refused ?? undefined;
    }
  }
  return complete({ code, logs, results, error, executionCount, contextId, refused });
}

type Bare = Pick<ExecutionResult, 'code' | 'logs' | 'results' | 'error' | 'executionCount' | 'contextId' | 'refused'>;

function complete({ error, contextId, executionCount, refused, ...bare }: Bare): ExecutionResult {
  const text = bare.results.findLast((result) => result.isMain)?.text;
  const written = bare.logs.stdout.join('');
  const outputs: ExecutionResult['outputs'] = {};
  for (const result of bare.results) for (const format of result.formats()) outputs[format] ??= result[format];
  const result: ExecutionResult = {
    ...bare,
    success: !error,
    output: text === undefined ? written : written + text,
    formats: FORMATS.filter((format) => format in outputs),
    outputs,
  };
  if (error) result.error = error;
  if (executionCount !== undefined) result.executionCount = executionCount;
  if (contextId !== undefined) result.contextId = contextId;
  if (refused) result.refused = refused;
  return result;
}

async function* translate(events: AsyncGenerator<wire.RunEvent, void, undefined>, signal?: AbortSignal): AsyncGenerator<unknown, void, undefined> {
  const timestamp = () => Date.now();
  try {
    for await (const event of events) {
      if (event.type === 'stdout' || event.type === 'stderr') yield { type: event.type, text: event.data, timestamp: event.timeMs };
      else if (event.type === 'result') yield { ...resultOf(event), type: 'result', timestamp: timestamp() };
      else if (event.type === 'error') {
        const { name, value, traceback } = errorFrom(event);
        yield { type: 'error', ename: name, evalue: value, traceback, timestamp: timestamp() };
      } else if (event.type === 'end') yield { type: 'execution_complete', executionCount: event.executionCount, timestamp: timestamp() };
    }
  } catch (error) {
    if (signal?.aborted) throw error;
    yield { type: 'error', ename: (error as Error).name, evalue: (error as Error).message, traceback: [], timestamp: now() };
  }
}

export function runCodeStream(scope: Scope, code: string, options: RunCodeOptions = {}): Promise<ReadableStream<Uint8Array>> {
  const key = options.idempotencyKey ?? newKey();
  return eventStream(async (signal) => {
    const run: Run = { code, options: { ...options, signal }, key };
    const first = await open(scope, run, undefined).catch((error: unknown) => {
      if (signal.aborted) interrupt(scope, run, undefined);
      throw error;
    });
    return translate(follow(scope, run, first), signal);
  }, options.signal);
}

