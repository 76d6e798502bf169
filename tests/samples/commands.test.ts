/** Pages "Commands", "Execute commands", "Stream output", "Run background processes". */

import assert from 'node:assert/strict';
import { type ExecEvent, type LogEvent, getSandbox, parseSSEStream } from '@cloudflare/sandbox';
import { env, program, project, sample } from './bench.js';

// Commands

sample('Commands, exec(): result, and output as it comes', async ({ sandbox, console }) => {
  await project(sandbox);
  const result = await sandbox.exec('npm run build');
  if (result.success) {
    console.log('Build output:', result.stdout);
  } else {
    console.error('Build failed:', result.stderr);
  }
  console.has(/Build output:[^]*building/);
  await sandbox.exec('npm install', {
    stream: true,
    onOutput: (stream, data) => console.log(`[${stream}] ${data}`),
  });
  console.has(/\[stdout\] [^]*up to date/);
});

sample('Commands, execStream()', async ({ sandbox, console }) => {
  await project(sandbox);
  const stream = await sandbox.execStream('npm run build');
  for await (const event of parseSSEStream<ExecEvent>(stream)) {
    switch (event.type) {
      case 'stdout':
        console.log('Output:', event.data);
        break;
      case 'complete':
        console.log('Exit code:', event.exitCode);
        break;
      case 'error':
        console.error('Failed:', event.error);
        break;
    }
  }
  console.has(/Output:[^]*building/);
  console.has('Exit code: 0');
});

sample('Commands, startProcess()', async ({ sandbox, console }) => {
  await project(sandbox, '/workspace/my-app');
  const server = await sandbox.startProcess('python -m http.server 8000');
  console.log('Started with PID:', server.pid);
  const app = await sandbox.startProcess('node app.js', {
    cwd: '/workspace/my-app',
    env: { NODE_ENV: 'production', PORT: '3000' },
  });
  console.has(/Started with PID: \d+/);
  await app.waitForLog('Server listening on port 3000', 20_000);
  await server.waitForPort(8000, { timeout: 60_000 });
});

sample('Commands, listProcesses()', async ({ sandbox, console }) => {
  await sandbox.startProcess('sleep 1000');
  const processes = await sandbox.listProcesses();
  for (const proc of processes) {
    console.log(`${proc.id}: ${proc.command} (PID ${proc.pid})`);
  }
  console.has(/^proc_\S+: sleep 1000 \(PID \d+\)$/);
});

sample('Commands, killProcess()', async ({ sandbox }) => {
  const server = await sandbox.startProcess('python -m http.server 8000');
  await sandbox.killProcess(server.id);
  assert.equal(await server.getStatus(), 'killed');
});

sample('Commands, killAllProcesses()', async ({ sandbox }) => {
  await sandbox.startProcess('sleep 1000');
  await sandbox.killAllProcesses();
  assert.ok((await sandbox.listProcesses()).every((process) => process.status === 'killed'));
});

sample('Commands, streamProcessLogs()', async ({ sandbox, console }) => {
  await project(sandbox);
  const server = await sandbox.startProcess('node server.js');
  const logStream = await sandbox.streamProcessLogs(server.id);
  for await (const log of parseSSEStream<LogEvent>(logStream)) {
    console.log(`[${log.timestamp}] ${log.data}`);
    if (log.data.includes('Server started')) break;
  }
  console.has(/^\[20\d\d-.*Z\] [^]*Server started/);
});

sample('Commands, getProcessLogs()', async ({ sandbox, console }) => {
  await project(sandbox);
  const server = await sandbox.startProcess('node server.js');
  // In place of five seconds.
  await server.waitForLog('Server started', 20_000);
  const logs = await sandbox.getProcessLogs(server.id);
  console.log('Server logs:', logs);
  console.has(/Server logs: [^]*Server listening on port 3000/);
});

// Execute commands

sample('Execute commands, basic', async ({ console }) => {
  const sandbox = getSandbox(env.Sandbox, 'my-sandbox');
  const result = await sandbox.exec('python --version');
  console.log(result.stdout);
  console.log(result.exitCode);
  console.log(result.success);
  assert.match(console.lines[0]!, /^Python 3\.11\./);
  assert.deepEqual(console.lines.slice(1), ['0', 'true']);
});

sample('Execute commands, arguments', async ({ sandbox }) => {
  const userInput = 'notes.txt';
  await sandbox.writeFile('notes.txt', 'noted');
  await sandbox.writeFile('process.py', 'import sys; print(open(sys.argv[1]).read())');
  const filename = userInput;
  await sandbox.exec(`cat ${filename}`);
  const safeFilename = filename.replace(/[^a-zA-Z0-9_.-]/g, '');
  assert.equal((await sandbox.exec(`cat ${safeFilename}`)).stdout, 'noted');
  await sandbox.writeFile('/tmp/input.txt', userInput);
  const result = await sandbox.exec('python process.py /tmp/input.txt');
  assert.equal(result.stdout, 'notes.txt\n');
});

sample('Execute commands, errors', async ({ sandbox, console }) => {
  const analyze = async () => {
    try {
      const result = await sandbox.exec('python analyze.py');
      if (!result.success) {
        console.error('Analysis failed:', result.stderr);
        console.log('Exit code:', result.exitCode);
        if (result.exitCode === 1) {
          throw new Error('Invalid input data');
        } else if (result.exitCode === 2) {
          throw new Error('Missing dependencies');
        }
      }
      return JSON.parse(result.stdout);
    } catch (error: any) {
      console.error('Execution failed:', error.message);
      throw error;
    }
  };
  await sandbox.writeFile('analyze.py', 'print(\'{"rows": 3}\')');
  assert.deepEqual(await analyze(), { rows: 3 });
  await sandbox.writeFile('analyze.py', 'raise SystemExit("no data")');
  await assert.rejects(analyze(), /Invalid input data/);
  console.has('Analysis failed: no data');
  await sandbox.writeFile('analyze.py', 'raise SystemExit(2)');
  await assert.rejects(analyze(), /Missing dependencies/);
});

sample('Execute commands, shell', async ({ sandbox, console }) => {
  await project(sandbox);
  await sandbox.writeFile('a.py', '');
  await sandbox.writeFile('generate.py', 'import sys; print("made"); print("warned", file=sys.stderr)');
  const result = await sandbox.exec('ls -la | grep ".py" | wc -l');
  console.log('Python files:', result.stdout.trim());
  console.has('Python files: 2');
  await sandbox.exec('python generate.py > output.txt 2> errors.txt');
  assert.equal((await sandbox.readFile('output.txt')).content + (await sandbox.readFile('errors.txt')).content, 'made\nwarned\n');
  const all = await sandbox.exec('cd /workspace && npm install && npm test');
  assert.match(all.stdout, /tests passed/);
});

sample('Execute commands, Python', async ({ sandbox, console }) => {
  const result = await sandbox.exec('python -c "print(sum([1, 2, 3, 4, 5]))"');
  console.log('Sum:', result.stdout.trim());
  console.has('Sum: 15');
  await sandbox.writeFile('/workspace/analyze.py', `
import sys
print(f"Argument: {sys.argv[1]}")
`);
  const script = await sandbox.exec('python /workspace/analyze.py data.csv');
  assert.equal(script.stdout, 'Argument: data.csv\n');
});

sample('Execute commands, command not found', async ({ sandbox, console }) => {
  const check = await sandbox.exec('which python3');
  if (!check.success) {
    console.error('python3 not found');
  }
  assert.deepEqual(console.lines, []);
  assert.equal((await sandbox.exec('which no-such-python')).success, false);
});

sample('Execute commands, working directory', async ({ sandbox }) => {
  await sandbox.writeFile('/workspace/my-app/script.py', 'print("ran")');
  assert.equal((await sandbox.exec('python /workspace/my-app/script.py')).stdout, 'ran\n');
  assert.equal((await sandbox.exec('cd /workspace/my-app && python script.py')).stdout, 'ran\n');
});

// Stream output

sample('Stream output, commands', async ({ console }) => {
  const sandbox = getSandbox(env.Sandbox, 'my-sandbox');
  await project(sandbox);
  const stream = await sandbox.execStream('npm run build');
  for await (const event of parseSSEStream<ExecEvent>(stream)) {
    switch (event.type) {
      case 'stdout':
        console.log(event.data);
        break;
      case 'stderr':
        console.error(event.data);
        break;
      case 'complete':
        console.log('Exit code:', event.exitCode);
        break;
      case 'error':
        console.error('Failed:', event.error);
        break;
    }
  }
  console.has(/^warned$/m);
  console.has('Exit code: 0');
});

sample('Stream output, process logs', async ({ sandbox, console }) => {
  await project(sandbox);
  const process = await sandbox.startProcess('node server.js');
  const logStream = await sandbox.streamProcessLogs(process.id);
  for await (const log of parseSSEStream<LogEvent>(logStream)) {
    console.log(log.data);
    if (log.data.includes('Server listening')) {
      console.log('Server is ready');
      break;
    }
  }
  console.has('Server is ready');
});

sample('Stream output, errors', async ({ sandbox, console }) => {
  const build = async () => {
    const stream = await sandbox.execStream('npm run build');
    for await (const event of parseSSEStream<ExecEvent>(stream)) {
      switch (event.type) {
        case 'stdout':
          console.log(event.data);
          break;
        case 'error':
          throw new Error(`Build failed: ${event.error}`);
        case 'complete':
          if (event.exitCode !== 0) {
            throw new Error(`Build failed with exit code ${event.exitCode}`);
          }
          break;
      }
    }
  };
  await assert.rejects(build(), /Build failed with exit code [1-9]/);
  await project(sandbox);
  await build();
  console.has(/building/);
});

// Run background processes

sample('Background processes, start', async ({ console }) => {
  const sandbox = getSandbox(env.Sandbox, 'my-sandbox');
  const server = await sandbox.startProcess('python -m http.server 8000');
  console.log('Server started');
  console.log('Process ID:', server.id);
  console.log('PID:', server.pid);
  console.log('Status:', server.status);
  console.has(/^Process ID: proc_/);
  console.has(/^PID: \d+$/);
  console.has('Status: running');
});

sample('Background processes, directory and variables', async ({ sandbox }) => {
  await project(sandbox, '/workspace/api');
  const process = await sandbox.startProcess('node server.js', {
    cwd: '/workspace/api',
    env: {
      NODE_ENV: 'production',
      PORT: '8080',
      API_KEY: env.API_KEY,
      DATABASE_URL: env.DATABASE_URL,
    },
  });
  await process.waitForPort(8080, { timeout: 60_000 });
  assert.match((await sandbox.exec(`tr '\\0' '\\n' < /proc/${process.pid}/environ`)).stdout, /DATABASE_URL=postgres:\/\/db\/app/);
});

sample('Background processes, status', async ({ sandbox, console }) => {
  const { id: processId } = await sandbox.startProcess('sleep 1000');
  const processes = await sandbox.listProcesses();
  console.log(`Running ${processes.length} processes:`);
  for (const proc of processes) {
    console.log(`${proc.id}: ${proc.command} (${proc.status})`);
  }
  const isRunning = processes.some((p) => p.id === processId && p.status === 'running');
  assert.ok(isRunning);
  console.has('Running 1 processes:');
  console.has(`${processId}: sleep 1000 (running)`);
});

sample('Background processes, logs as they come', async ({ sandbox, console }) => {
  await project(sandbox);
  const server = await sandbox.startProcess('node server.js');
  const logStream = await sandbox.streamProcessLogs(server.id);
  for await (const log of parseSSEStream<LogEvent>(logStream)) {
    console.log(log.data);
    if (log.data.includes('Server listening')) {
      console.log('Server is ready!');
      break;
    }
  }
  console.has('Server is ready!');
});

sample('Background processes, logs so far', async ({ sandbox, console }) => {
  const server = await sandbox.startProcess('echo hello; sleep 1000');
  await server.waitForLog('hello', 20_000);
  const logs = await sandbox.getProcessLogs(server.id);
  console.log('Logs:', logs);
  console.has('Logs: hello');
});

sample('Background processes, stop', async ({ sandbox }) => {
  const server = await sandbox.startProcess('sleep 1000');
  await sandbox.killProcess(server.id);
  assert.equal(await server.getStatus(), 'killed');
  {
    const server = await sandbox.startProcess('trap "" TERM; while :; do sleep 0.1; done');
    await sandbox.killProcess(server.id, 'SIGKILL');
    assert.equal(await server.getStatus(), 'killed');
  }
  const last = await sandbox.startProcess('sleep 1000');
  await sandbox.killAllProcesses();
  assert.equal(await last.getStatus(), 'killed');
});

sample('Background processes, several in order', async ({ sandbox, console }) => {
  await project(sandbox);
  await program(sandbox, 'redis-server', 'echo "* Ready to accept connections tcp"; exec sleep 1000');
  const db = await sandbox.startProcess('redis-server');
  const dbLogs = await sandbox.streamProcessLogs(db.id);
  for await (const log of parseSSEStream<LogEvent>(dbLogs)) {
    if (log.data.includes('Ready to accept connections')) {
      break;
    }
  }
  const api = await sandbox.startProcess('node api-server.js', {
    env: { DATABASE_URL: 'redis://localhost:6379' },
  });
  console.log('All services running');
  assert.deepEqual([await db.getStatus(), await api.getStatus()], ['running', 'running']);
});

sample('Background processes, one that exits at once', async ({ sandbox, console }) => {
  const process = await sandbox.startProcess('node server.js');
  await process.waitForExit(20_000);
  const processes = await sandbox.listProcesses();
  const found = processes.find((p) => p.id === process.id);
  // What has ended is still listed here, and says so.
  assert.equal(found?.status, 'failed');
  const logs = await sandbox.getProcessLogs(process.id);
  console.error('Process exited:', logs);
  console.has(/Process exited: [^]*Cannot find module/);
});

sample('Background processes, a port that is in use', async ({ sandbox }) => {
  await project(sandbox);
  const first = await sandbox.startProcess('node server.js');
  await first.waitForPort(3000, { timeout: 60_000 });
  await sandbox.killAllProcesses();
  const server = await sandbox.startProcess('node server.js');
  await server.waitForPort(3000, { timeout: 60_000 });
});
