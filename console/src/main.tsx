import "@mantine/core/styles.layer.css";
import "@mantine/notifications/styles.layer.css";
import "./fonts.css";
import "./global.css";

import { MantineProvider } from "@mantine/core";
import { Notifications } from "@mantine/notifications";
import { QueryCache, QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { RouterProvider } from "react-router";
import { Problem } from "./api/problem";
import { currentSession, subscribeSession } from "./api/session";
import { router } from "./router";
import { cssVariablesResolver, theme } from "./theme";
import { showProblem } from "./ui/notify";

const queryClient = new QueryClient({
  queryCache: new QueryCache({
    // A page that has nothing else to show says so itself; a failed refresh of what is already there is told here.
    onError: (error, query) => {
      if (query.state.data !== undefined && query.meta?.quiet !== true) showProblem(error);
    },
  }),
  defaultOptions: {
    queries: {
      staleTime: 20_000,
      gcTime: 10 * 60_000,
      retry: (failures, error) => failures < 2 && error instanceof Problem && (error.unreachable || error.status >= 502),
      networkMode: "always",
    },
    mutations: { networkMode: "always" },
  },
});

let signedIn = currentSession()?.account.id;
subscribeSession(() => {
  const account = currentSession()?.account.id;
  if (account === signedIn) return;
  // Nothing that one person saw may be shown to the next.
  signedIn = account;
  queryClient.clear();
});

const container = document.getElementById("root");
if (container === null) throw new Error("the page has no #root");

createRoot(container).render(
  <StrictMode>
    <MantineProvider theme={theme} cssVariablesResolver={cssVariablesResolver} defaultColorScheme="auto">
      <QueryClientProvider client={queryClient}>
        <Notifications position="bottom-center" limit={3} autoClose={6000} />
        <RouterProvider router={router} />
      </QueryClientProvider>
    </MantineProvider>
  </StrictMode>,
);
