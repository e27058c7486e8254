import type { ComponentType } from "react";
import { createBrowserRouter, type RouteObject } from "react-router";
import { Shell } from "./shell/Shell";
import { RouteFailure } from "./shell/RouteFailure";
import { FirstPaint } from "./shell/FirstPaint";

/** One chunk a page. */
const page = (load: () => Promise<{ default: ComponentType }>): Pick<RouteObject, "lazy"> => ({
  lazy: async () => ({ Component: (await load()).default }),
});

export const router = createBrowserRouter([
  {
    ErrorBoundary: RouteFailure,
    HydrateFallback: FirstPaint,
    children: [
      { path: "/signin", ...page(() => import("./pages/SignIn")) },
      { path: "/signup", ...page(() => import("./pages/SignUp")) },
      {
        Component: Shell,
        children: [
          {
            ErrorBoundary: RouteFailure,
            children: [
              { index: true, ...page(() => import("./pages/Home")) },
              { path: "post/:id", ...page(() => import("./pages/PostThread")) },
              { path: "u/:handle", ...page(() => import("./pages/ProfilePage")) },
              { path: "u/:handle/:side", ...page(() => import("./pages/People")) },
              { path: "tag/:tag", ...page(() => import("./pages/Tag")) },
              { path: "trends", ...page(() => import("./pages/TrendsPage")) },
              { path: "notifications", ...page(() => import("./pages/NotificationsPage")) },
              { path: "bookmarks", ...page(() => import("./pages/Bookmarks")) },
              { path: "settings/:section?", ...page(() => import("./pages/Settings")) },
              { path: "glass/feed", ...page(() => import("./glass/FeedGlass")) },
              { path: "admin/:section?", ...page(() => import("./admin/Admin")) },
              { path: "*", ...page(() => import("./pages/NotFound")) },
            ],
          },
        ],
      },
    ],
  },
]);
