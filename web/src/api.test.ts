import { afterEach, describe, expect, it, vi } from 'vitest';
import { api, ApiError, errorFromBody } from './api';

describe('errors of the server', () => {
  it('takes the sentence of a problem', () => {
    const error = errorFromBody(404, '{"title":"Not found","detail":"This link is not known. Ask for a new one.","code":"invite_unknown"}');
    expect(error.message).toBe('This link is not known. Ask for a new one.');
    expect(error.code).toBe('invite_unknown');
    expect(error.technical).toContain('HTTP 404');
  });
  it('speaks for itself when there is no problem in the body', () => {
    expect(errorFromBody(502, '<html>Bad gateway</html>').message).toMatch(/Try again/);
    expect(errorFromBody(403, '').message).toMatch(/new one/);
    expect(errorFromBody(400, '{"detail":7}').message).toMatch(/problem/);
  });
  it('does not show a fault of the server in the server’s words, but keeps them for the details', () => {
    const error = errorFromBody(500, '{"detail":"no such table"}');
    expect(error.message).not.toContain('table');
    expect(error.technical).toContain('no such table');
  });
});

describe('requests', () => {
  afterEach(() => vi.unstubAllGlobals());

  it('carries the token and the body, and takes an empty answer', async () => {
    const fetch = vi.fn().mockResolvedValue(new Response(null, { status: 204 }));
    vi.stubGlobal('fetch', fetch);
    await api.setConsent('01/A', 'token', 'transcription', false, 'v1');
    const [path, options] = fetch.mock.calls[0] as [string, RequestInit];
    expect(path).toBe('/v1/interviews/01%2FA/consents');
    expect(options.headers).toMatchObject({ Authorization: 'Bearer token' });
    expect(JSON.parse(options.body as string)).toEqual({
      purpose: 'transcription',
      granted: false,
      notice_version: 'v1',
    });
  });
  it('says what to do when nobody answers', async () => {
    vi.stubGlobal('fetch', vi.fn().mockRejectedValue(new TypeError('Failed to fetch')));
    const error = await api.practice().catch((e: unknown) => e);
    expect(error).toBeInstanceOf(ApiError);
    expect((error as ApiError).message).toMatch(/Try again/);
  });
});
