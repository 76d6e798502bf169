/** What is done on each runtime, with the package as its resolver finds it. */

export async function steps({ getSandbox, parseSSEStream, collectFile }, binding, id) {
  const done = {};
  const sandbox = getSandbox(binding, id);
  try {
    done.exec = (await sandbox.exec('echo $((6 * 7))')).stdout;
    done.lines = [];
    for await (const event of parseSSEStream(await sandbox.execStream('echo one; echo two >&2'))) {
      if (event.data) done.lines.push(`${event.type} ${event.data.trim()}`);
    }
    done.lines.sort();
    const bytes = new Uint8Array(100_000).map((_, at) => at % 251);
    await sandbox.writeFile('/tmp/a.bin', bytes);
    await sandbox.writeFile('/tmp/b.bin', new Blob([bytes]).stream());
    const read = (await sandbox.readFile('/tmp/b.bin')).bytes();
    done.bytes = read.length === bytes.length && read.every((byte, at) => byte === bytes[at]);
    done.collected = (await collectFile(await sandbox.readFileStream('/tmp/a.bin'))).content.length;
    const process = await sandbox.startProcess('echo ready; sleep 1000');
    done.line = (await process.waitForLog(/re(ad)y/)).match[1];
    await process.kill();
    done.status = await process.getStatus();
    const session = await sandbox.createSession({ env: { NAME: 'it' } });
    done.session = (await session.exec('echo $NAME')).stdout;
    done.error = await sandbox.readFile('/none').catch((error) => `${error.name} ${error.code} ${error.httpStatus}`);
    const abort = new AbortController();
    const running = sandbox.exec('echo begun; sleep 1000', { signal: abort.signal, onOutput: () => abort.abort(new Error('enough')) });
    done.aborted = await running.then(() => 'no', () => 'yes');
    done.left = (await sandbox.exec('pgrep -fx "sleep 1000" || echo none')).stdout;
    const terminal = await sandbox.openTerminal({ command: 'read line; echo "got $line"; exit 3' });
    terminal.write('typed\n');
    let shown = '';
    const decoder = new TextDecoder();
    for await (const chunk of terminal) shown += decoder.decode(chunk, { stream: true });
    done.terminal = [shown.includes('got typed'), (await terminal.exited).code];
  } finally {
    await sandbox.destroy();
  }
  return done;
}
