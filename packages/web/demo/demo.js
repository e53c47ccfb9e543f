import { Firecrest } from './firecrest/index.js';

const $ = (id) => document.getElementById(id);
const mb = (bytes) => `${(bytes / 1e6).toFixed(bytes < 1e8 ? 1 : 0)} MB`;

let model;
let loading;
let answering;
const conversation = [];

$('variant').textContent = Firecrest.variant();
if ('serviceWorker' in navigator) {
  navigator.serviceWorker.register('offline.js').catch(() => undefined);
  // What came before there was one has not passed it.
  navigator.serviceWorker.ready.then(({ active }) => {
    active.postMessage([location.href, ...performance.getEntriesByType('resource').map(({ name }) => name)]);
  });
}

// Tabs, by mouse and by arrow keys.
const tabs = [...document.querySelectorAll('[role=tab]')];
function select(tab) {
  for (const other of tabs) {
    const chosen = other === tab;
    other.setAttribute('aria-selected', chosen);
    other.tabIndex = chosen ? 0 : -1;
    $(other.getAttribute('aria-controls')).hidden = !chosen;
  }
}
tabs.forEach((tab, i) => {
  tab.addEventListener('click', () => select(tab));
  tab.addEventListener('keydown', ({ key }) => {
    if (key !== 'ArrowLeft' && key !== 'ArrowRight') return;
    const next = tabs[(i + (key === 'ArrowRight' ? 1 : tabs.length - 1)) % tabs.length];
    select(next);
    next.focus();
  });
});

// Loading
const STAGES = { start: 'Starting', download: 'Downloading', read: 'Reading', verify: 'Checking', initialize: 'Preparing', ready: 'Ready' };

async function load(source) {
  loading?.abort();
  answering?.abort();
  model?.dispose();
  model = undefined;
  known = { text: '', vectors: [] };
  enable(false);
  loading = new AbortController();
  const { signal } = loading;
  for (const id of ['error', 'speed', 'memory']) $(id).textContent = '';
  $('loader').open = true;
  $('progress').hidden = false;
  $('status').textContent = 'Loading…';
  try {
    const loaded = await Firecrest.load(source, {
      signal,
      onProgress: ({ stage, loaded, total, stored }) => {
        const from = stored > 0 && stage === 'read' ? ' (stored)' : '';
        $('stage').textContent = total ? `${STAGES[stage]}${from}: ${mb(loaded)} of ${mb(total)}` : STAGES[stage];
        if (total) $('bar').value = loaded / total;
      },
    });
    model = loaded;
    const { info } = loaded;
    $('variant').textContent = `${info.variant}, ${info.threads} ${info.threads === 1 ? 'thread' : 'threads'}`;
    $('status').textContent = `${info.name ?? info.architecture}, ${mb(info.fileBytes)}`;
    $('memory').textContent = `memory ${mb(info.memoryBytes)}`;
    enable(true);
    $('loader').open = false;
    $('loader-title').textContent = 'Load another model';
    select($(info.kind === 'embedding' ? 'tab-search' : 'tab-chat'));
    (info.kind === 'embedding' ? $('query') : $('prompt')).focus();
  } catch (error) {
    $('status').textContent = 'No model';
    if (error.name !== 'AbortError') $('error').textContent = error.message;
  } finally {
    if (loading?.signal === signal) $('progress').hidden = true;
    showStored();
  }
}

function enable(on) {
  const chat = on && model.info.kind === 'language';
  $('prompt').disabled = $('send').disabled = $('clear').disabled = !chat;
  $('prompt').placeholder = chat ? 'Ask something' : 'Load a model first';
  $('regenerate').disabled = !chat || conversation.length === 0;
  $('search').disabled = !on || chat;
}

$('load-form').addEventListener('submit', (event) => {
  event.preventDefault();
  if ($('url').value) load($('url').value);
  else $('url').focus();
});
$('file').addEventListener('change', () => {
  const files = [...$('file').files].sort((a, b) => a.name.localeCompare(b.name));
  if (files.length > 0) load(files);
});
$('cancel-load').addEventListener('click', () => loading?.abort());
for (const kind of ['dragover', 'dragleave', 'drop']) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    $('loader').classList.toggle('drop', kind === 'dragover');
    const files = kind === 'drop' ? [...event.dataTransfer.files] : [];
    if (files.length > 0) load(files.sort((a, b) => a.name.localeCompare(b.name)));
  });
}

async function showStored() {
  const files = await Firecrest.stored().catch(() => []);
  $('stored').hidden = files.length === 0;
  $('stored-list').replaceChildren(
    ...files.map(({ url, bytes, complete }) => {
      const item = document.createElement('li');
      const open = document.createElement('button');
      open.textContent = 'Load';
      open.addEventListener('click', () => load(url));
      const remove = document.createElement('button');
      remove.textContent = 'Delete';
      remove.setAttribute('aria-label', `Delete ${url}`);
      remove.addEventListener('click', () => Firecrest.remove(url).then(showStored));
      item.append(`${url.split('/').pop()} (${mb(bytes)}${complete ? '' : ', unfinished'}) `, open, ' ', remove);
      return item;
    }),
  );
  const { usage, quota } = await Firecrest.quota();
  $('quota').textContent = `${mb(usage)} of ${mb(quota)} used`;
}
showStored();

// Chat

/** Calls `change`, and stays at the end of the page where that was seen before. */
function following(change) {
  const main = $('main');
  const follow = main.scrollHeight - main.scrollTop - main.clientHeight < 80;
  change();
  if (follow) main.scrollTop = main.scrollHeight;
}

function show(role, text = '') {
  const paragraph = document.createElement('p');
  paragraph.className = `message ${role}`;
  paragraph.textContent = text;
  $('messages').append(paragraph);
  $('main').scrollTop = $('main').scrollHeight;
  return paragraph;
}

async function answer() {
  answering = new AbortController();
  const place = show('assistant');
  $('send').hidden = true;
  $('stop').hidden = false;
  $('regenerate').disabled = true;
  const reply = { role: 'assistant', content: '' };
  const started = performance.now();
  let pieces = 0;
  try {
    const stream = model.generate(conversation, { maxTokens: 1024, temperature: 0.7, overflow: 'shift', signal: answering.signal });
    for await (const piece of stream) {
      reply.content += piece;
      following(() => place.append(piece));
      pieces++;
      $('speed').textContent = `${((1000 * pieces) / (performance.now() - started)).toFixed(1)} tokens/s`;
    }
    const stats = await stream.stats;
    if (stats.tokensPerSecond) $('speed').textContent = `${stats.tokensPerSecond.toFixed(1)} tokens/s`;
    $('memory').textContent = `memory ${mb(stats.memoryBytes)}`;
  } catch (error) {
    if (error.name !== 'AbortError') $('error').textContent = error.message;
  } finally {
    conversation.push(reply);
    $('send').hidden = false;
    $('stop').hidden = true;
    $('regenerate').disabled = !model;
    $('prompt').focus();
  }
}

$('chat-form').addEventListener('submit', (event) => {
  event.preventDefault();
  const content = $('prompt').value.trim();
  if (!content || !model || !$('stop').hidden) return;
  $('prompt').value = '';
  conversation.push({ role: 'user', content });
  show('user', content);
  answer();
});
$('prompt').addEventListener('keydown', (event) => {
  if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $('chat-form').requestSubmit();
});
$('stop').addEventListener('click', () => answering?.abort());
$('regenerate').addEventListener('click', () => {
  if (conversation.at(-1)?.role !== 'assistant') return;
  conversation.pop();
  $('messages').lastElementChild?.remove();
  answer();
});
$('clear').addEventListener('click', () => {
  answering?.abort();
  conversation.length = 0;
  $('messages').replaceChildren();
  $('regenerate').disabled = true;
});

// Search
let known = { text: '', vectors: [] };
$('search-form').addEventListener('submit', async (event) => {
  event.preventDefault();
  const text = $('paragraphs').value;
  const paragraphs = text.split(/\n\s*\n/).map((part) => part.trim()).filter(Boolean);
  if (!model || paragraphs.length === 0 || !$('query').value) return;
  const started = performance.now();
  if (known.text !== text) known = { text, vectors: await model.embed(paragraphs) };
  const [query] = await model.embed([$('query').value]);
  const dot = (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0);
  const found = paragraphs
    .map((paragraph, i) => ({ paragraph, score: dot(query, known.vectors[i]) }))
    .sort((a, b) => b.score - a.score)
    .slice(0, 10);
  $('speed').textContent = `${(performance.now() - started).toFixed(0)} ms`;
  $('results').replaceChildren(
    ...found.map(({ paragraph, score }) => {
      const item = document.createElement('li');
      const number = document.createElement('small');
      number.textContent = ` ${score.toFixed(3)}`;
      item.append(paragraph, number);
      return item;
    }),
  );
});
