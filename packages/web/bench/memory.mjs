// What a browser takes of the machine's memory, as Linux counts it.
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** A process and all that it started, by their ids. */
function family(root) {
  const children = new Map();
  for (const id of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    const stat = read(`/proc/${id}/stat`);
    const parent = stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1];
    children.set(parent, [...(children.get(parent) ?? []), id]);
  }
  const all = [String(root)];
  for (const id of all) all.push(...(children.get(id) ?? []));
  return all;
}

/** A file of `/proc`; nothing where the process has ended meanwhile. */
function read(path) {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

/** Bytes of processes: what each has to itself, and its part of what they share. */
const bytesOf = (ids) =>
  ids.reduce((sum, id) => sum + 1024 * Number(/^Pss: +(\d+)/m.exec(read(`/proc/${id}/smaps_rollup`))?.[1] ?? 0), 0);

/**
 * The most that a browser takes for a page at `url`, until `done` says so. No debugger is attached: it would keep what
 * the page downloads.
 */
export async function peak(executable, url, done) {
  const profile = mkdtempSync(join(tmpdir(), 'firecrest-profile-'));
  const options = ['--headless', '--no-sandbox', '--no-first-run', '--disable-component-update', `--user-data-dir=${profile}`];
  const browser = spawn(executable, [...options, url], { stdio: 'ignore', detached: true });
  const ended = new Promise((resolve) => browser.once('exit', resolve));
  let most = 0;
  while (!done()) {
    most = Math.max(most, bytesOf(family(browser.pid)));
    await pause(40);
  }
  process.kill(-browser.pid);
  await ended;
  await pause(200);
  rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
  return most;
}
