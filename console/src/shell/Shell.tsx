import { lazy, Suspense, useCallback, useEffect, useMemo, useState } from "react";
import { Navigate, Outlet, ScrollRestoration, useLocation } from "react-router";
import { useOnline, useSession } from "../lib/hooks";
import { Aside } from "./Aside";
import { ComposeContext, type ComposeTarget } from "./compose";
import { useLiveFeed } from "./live";
import { BottomBar, Rail, TopBar } from "./Navigation";
import classes from "./Shell.module.css";
import { useShortcuts } from "./shortcuts";

const loadCompose = () => import("../feed/ComposeDialog");
const loadHelp = () => import("./HelpDialog");
const loadJump = () => import("./JumpDialog");
const ComposeDialog = lazy(loadCompose);
const HelpDialog = lazy(loadHelp);
const JumpDialog = lazy(loadJump);

/** Everything around a page, for somebody who is signed in. */
export function Shell() {
  const session = useSession();
  const { pathname, search } = useLocation();
  if (session === null) {
    const next = `${pathname}${search}`;
    return <Navigate to={next === "/" ? "/signin" : `/signin?next=${encodeURIComponent(next)}`} replace />;
  }
  return <SignedIn key={session.account.id} accountId={session.account.id} handle={session.account.handle} />;
}

function SignedIn({ accountId, handle }: { accountId: string; handle: string }) {
  const [target, setTarget] = useState<ComposeTarget | null>(null);
  const [help, setHelp] = useState(false);
  const [jump, setJump] = useState(false);
  const { pathname } = useLocation();
  const wide = pathname.startsWith("/admin") || pathname.startsWith("/glass");

  useLiveFeed(accountId);

  // Who presses a key and types on must not wait for code: it is fetched when there is nothing else to do.
  useEffect(() => {
    const timer = window.setTimeout(() => void Promise.allSettled([loadCompose(), loadJump(), loadHelp()]), 1500);
    return () => window.clearTimeout(timer);
  }, []);

  const compose = useCallback(() => setTarget({ kind: "post" }), []);
  const openHelp = useCallback(() => setHelp(true), []);
  const openJump = useCallback(() => setJump(true), []);
  useShortcuts(useMemo(() => ({ compose, jump: openJump, help: openHelp, handle }), [compose, openJump, openHelp, handle]));

  return (
    <ComposeContext value={setTarget}>
      <a className="skip-link" href="#main">
        Skip to the content
      </a>
      <div className={classes.shell} data-wide={wide || undefined}>
        <Rail onCompose={compose} onHelp={openHelp} onJump={openJump} />
        <div className={classes.middle}>
          <TopBar onJump={openJump} />
          <OfflineBanner />
          <main id="main" tabIndex={-1} className={classes.main}>
            <Outlet />
          </main>
        </div>
        {!wide && <Aside onHelp={openHelp} />}
      </div>
      <BottomBar onCompose={compose} />
      <ScrollRestoration />
      <Suspense fallback={null}>
        {target !== null && <ComposeDialog target={target} close={() => setTarget(null)} />}
        {help && <HelpDialog close={() => setHelp(false)} />}
        {jump && <JumpDialog close={() => setJump(false)} />}
      </Suspense>
    </ComposeContext>
  );
}

function OfflineBanner() {
  const online = useOnline();
  if (online) return null;
  return (
    <div className={classes.offline} role="status">
      You are offline. What you see may be old; it comes up to date by itself when the connection is back.
    </div>
  );
}
