// Makes a page cross-origin isolated, and so lets it have threads, on hosts that cannot set headers.
//
// Copy this file beside the page and load it there before anything else:
//     <script src="coi-service-worker.js"></script>
// The first visit reloads once, when the worker is in charge.
if (typeof window === 'undefined') {
  self.addEventListener('install', () => self.skipWaiting());
  self.addEventListener('activate', (event) => event.waitUntil(self.clients.claim()));
  self.addEventListener('fetch', (event) => {
    const { request } = event;
    if (request.cache === 'only-if-cached' && request.mode !== 'same-origin') return;
    event.respondWith(
      fetch(request).then((response) => {
        // Opaque responses cannot be looked into, nor copied with other headers.
        if (response.status === 0) return response;
        const headers = new Headers(response.headers);
        headers.set('Cross-Origin-Opener-Policy', 'same-origin');
        headers.set('Cross-Origin-Embedder-Policy', 'credentialless');
        headers.set('Cross-Origin-Resource-Policy', 'cross-origin');
        const { status, statusText, body } = response;
        return new Response(body, { status, statusText, headers });
      }),
    );
  });
} else if (!window.crossOriginIsolated && 'serviceWorker' in navigator && window.isSecureContext) {
  const { src } = document.currentScript;
  navigator.serviceWorker.register(src).then(() => {
    if (navigator.serviceWorker.controller) return;
    navigator.serviceWorker.addEventListener('controllerchange', () => location.reload());
  });
}
