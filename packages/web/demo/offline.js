// The page's service worker: keeps the page and the package, so that both work without a network, and adds the headers
// that let a page have threads where the host does not. Models are kept by the package itself.
const CACHE = 'firecrest-page';

self.addEventListener('install', () => self.skipWaiting());
self.addEventListener('activate', (event) => event.waitUntil(self.clients.claim()));
self.addEventListener('fetch', (event) => {
  if (isOurs(event.request)) event.respondWith(answer(event.request));
});
// Addresses that the page got without this worker, at its first visit.
self.addEventListener('message', (event) => {
  const requests = event.data.map((url) => new Request(url)).filter(isOurs);
  event.waitUntil(Promise.allSettled(requests.map(answer)));
});

/** Whether a request is for a part of the page. */
function isOurs(request) {
  const { origin, pathname } = new URL(request.url);
  const whole = request.method === 'GET' && !request.headers.has('range');
  return whole && origin === location.origin && !pathname.endsWith('.gguf');
}

async function answer(request) {
  const cache = await caches.open(CACHE);
  try {
    const response = await fetch(request);
    if (!response.ok) return response;
    const headers = new Headers(response.headers);
    headers.set('Cross-Origin-Opener-Policy', 'same-origin');
    headers.set('Cross-Origin-Embedder-Policy', 'require-corp');
    const kept = new Response(response.body, { status: response.status, headers });
    await cache.put(request, kept.clone());
    return kept;
  } catch (error) {
    const kept = await cache.match(request, { ignoreSearch: true });
    if (kept) return kept;
    throw error;
  }
}
