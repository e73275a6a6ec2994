// Package browser has tests that look at Baton's pages with a browser: Chromium
// or Chrome, where one is installed. It holds no code.
package browser
