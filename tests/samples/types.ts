/**
 * That types of programs written for the reference fit: what they pass is taken, what they get is what
 * they expect. Checked by the compiler when the samples are built; there is nothing to run.
 */

import type * as ours from '@cloudflare/sandbox';
import type * as theirs from 'reference';

/** An error at compile time unless what is of type `From` can be used as `To`. */
type Fits<From extends To, To> = From;

/** What programs pass. */
export type Taken = [
  Fits<theirs.SandboxOptions, ours.SandboxOptions>,
  Fits<theirs.ExecOptions, ours.ExecOptions>,
  Fits<theirs.StreamOptions, ours.StreamOptions>,
  Fits<theirs.ProcessOptions, ours.ProcessOptions>,
  Fits<theirs.WaitForPortOptions, ours.WaitForPortOptions>,
  Fits<theirs.SessionOptions, ours.SessionOptions>,
  Fits<theirs.ListFilesOptions, ours.ListFilesOptions>,
  Fits<theirs.WatchOptions, ours.WatchOptions>,
  Fits<theirs.CheckChangesOptions, ours.CheckChangesOptions>,
  Fits<theirs.CreateContextOptions, ours.CreateContextOptions>,
  Fits<theirs.RunCodeOptions, ours.RunCodeOptions>,
  Fits<theirs.BackupOptions, ours.BackupOptions>,
  Fits<theirs.DirectoryBackup, ours.DirectoryBackup>,
  Fits<theirs.PtyOptions, ours.PtyOptions>,
];

/** What programs get. */
export type Got = [
  Fits<ours.ExecResult, theirs.ExecResult>,
  // The end of a stream does not say again what was streamed.
  Fits<Omit<ours.ExecEvent, 'result'>, Omit<theirs.ExecEvent, 'result'>>,
  Fits<ours.LogEvent, theirs.LogEvent>,
  Fits<ours.Process, theirs.Process>,
  Fits<ours.WaitForLogResult, theirs.WaitForLogResult>,
  Fits<ours.FileMetadata, theirs.FileMetadata>,
  Fits<ours.FileChunk, theirs.FileChunk>,
  Fits<ours.FileStreamEvent, theirs.FileStreamEvent>,
  // That events were lost is an event of ours.
  Fits<Exclude<ours.FileWatchSSEEvent, { type: 'overflow' }>, theirs.FileWatchSSEEvent>,
  Fits<ours.CheckChangesResult, theirs.CheckChangesResult>,
  Fits<ours.GitCheckoutResult, theirs.GitCheckoutResult>,
  Fits<ours.CodeContext, theirs.CodeContext>,
  Fits<ours.ExecutionResult, theirs.ExecutionResult>,
  Fits<ours.DirectoryBackup, theirs.DirectoryBackup>,
  Fits<ours.RestoreBackupResult, theirs.RestoreBackupResult>,
  Fits<ours.ExecutionSession, theirs.ExecutionSession>,
  Fits<ours.Sandbox, theirs.ISandbox>,
];
