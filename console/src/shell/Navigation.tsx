import { ActionIcon, Menu, UnstyledButton, useComputedColorScheme, useMantineColorScheme } from "@mantine/core";
import {
  IconActivity,
  IconApi,
  IconBell,
  IconBookmark,
  IconBox,
  IconCheck,
  IconDeviceDesktop,
  IconHome,
  IconKeyboard,
  IconLogout,
  IconMoon,
  IconPencil,
  IconSearch,
  IconSettings,
  IconSun,
  IconTrendingUp,
  IconUser,
  type Icon,
} from "@tabler/icons-react";
import { NavLink, useNavigate } from "react-router";
import * as identity from "../api/identity";
import { endSession } from "../api/session";
import { useIncoming } from "../feed/incoming";
import { useAccount, useSession } from "../lib/hooks";
import { Avatar } from "../ui/Avatar";
import { Logo } from "../ui/Logo";
import { showProblem } from "../ui/notify";
import { useUnread } from "./live";
import classes from "./Navigation.module.css";
import { usePermission } from "./me";

interface Place {
  to: string;
  label: string;
  icon: Icon;
  badge?: number;
  dot?: boolean;
  end?: boolean;
}

function usePlaces(): { main: Place[]; inside: Place[] } {
  const { handle } = useAccount();
  const unread = useUnread();
  const incoming = useIncoming();
  const administrator = usePermission("admin.inspect");
  return {
    main: [
      { to: "/", label: "Home", icon: IconHome, dot: incoming.length > 0, end: true },
      { to: "/trends", label: "Trends", icon: IconTrendingUp },
      { to: "/notifications", label: "Notifications", icon: IconBell, badge: unread },
      { to: "/bookmarks", label: "Bookmarks", icon: IconBookmark },
      { to: `/u/${handle}`, label: "Profile", icon: IconUser },
      { to: "/settings", label: "Settings", icon: IconSettings },
    ],
    inside: [
      { to: "/glass/feed", label: "Glass box", icon: IconBox },
      ...(administrator === true ? [{ to: "/admin", label: "Admin", icon: IconActivity }] : []),
    ],
  };
}

function PlaceLink({ place, className }: { place: Place; className: string | undefined }) {
  const Mark = place.icon;
  const badge = place.badge ?? 0;
  return (
    <NavLink to={place.to} end={place.end ?? false} className={className ?? ""} title={place.label}>
      <span className={classes.icon}>
        <Mark size={21} stroke={1.7} aria-hidden="true" />
        {badge > 0 && <span className={classes.badge}>{badge > 99 ? "99+" : badge}</span>}
        {place.dot === true && <span className={classes.dot} />}
      </span>
      <span className={classes.label}>{place.label}</span>
      {badge > 0 && <span className="visually-hidden">, {badge} unread</span>}
    </NavLink>
  );
}

/** The navigation of wide screens. */
export function Rail({
  onCompose,
  onHelp,
  onJump,
}: {
  onCompose: () => void;
  onHelp: () => void;
  onJump: () => void;
}) {
  const places = usePlaces();
  return (
    <header className={classes.rail}>
      <NavLink to="/" className={classes.brand ?? ""} aria-label="Holon, home">
        <Logo />
        <span className={classes.wordmark}>Holon</span>
      </NavLink>
      <nav aria-label="Main" className={classes.nav}>
        {places.main.map((place) => (
          <PlaceLink key={place.to} place={place} className={classes.link} />
        ))}
        <div className={classes.divider} />
        {places.inside.map((place) => (
          <PlaceLink key={place.to} place={place} className={classes.link} />
        ))}
        <a href="/docs" className={classes.link} title="API reference">
          <span className={classes.icon}>
            <IconApi size={21} stroke={1.7} aria-hidden="true" />
          </span>
          <span className={classes.label}>API reference</span>
        </a>
      </nav>
      <UnstyledButton className={classes.compose} onClick={onCompose} title="New post (n)">
        <IconPencil size={18} stroke={1.9} aria-hidden="true" />
        <span className={classes.label}>New post</span>
      </UnstyledButton>
      <div className={classes.foot}>
        <AccountMenu />
        <div className={classes.tools}>
          <ActionIcon variant="subtle" color="gray" c="var(--text-2)" aria-label="Go to a person or a tag" title="Go to (/)" onClick={onJump}>
            <IconSearch size={18} stroke={1.7} />
          </ActionIcon>
          <ActionIcon variant="subtle" color="gray" c="var(--text-2)" aria-label="Keyboard shortcuts" title="Keyboard shortcuts (?)" onClick={onHelp}>
            <IconKeyboard size={18} stroke={1.7} />
          </ActionIcon>
          <SchemeToggle />
        </div>
      </div>
    </header>
  );
}

/** The top of small screens. */
export function TopBar({ onJump }: { onJump: () => void }) {
  return (
    <header className={classes.top}>
      <NavLink to="/" className={classes.brand ?? ""} aria-label="Holon, home">
        <Logo size={26} />
      </NavLink>
      <div className={classes.topTools}>
        <ActionIcon variant="subtle" color="gray" c="var(--text-2)" size="lg" aria-label="Go to a person or a tag" onClick={onJump}>
          <IconSearch size={20} stroke={1.7} />
        </ActionIcon>
        <SchemeToggle />
        <AccountMenu compact />
      </div>
    </header>
  );
}

/** The navigation of small screens. */
export function BottomBar({ onCompose }: { onCompose: () => void }) {
  const { main } = usePlaces();
  const pick = (label: string) => main.find((place) => place.label === label);
  const show = (label: string) => {
    const place = pick(label);
    return place === undefined ? null : <PlaceLink place={place} className={classes.tab} />;
  };
  return (
    <nav aria-label="Main" className={classes.bottom}>
      {show("Home")}
      {show("Trends")}
      <UnstyledButton className={classes.bottomCompose} onClick={onCompose} aria-label="New post">
        <IconPencil size={21} stroke={1.9} aria-hidden="true" />
      </UnstyledButton>
      {show("Notifications")}
      {show("Profile")}
    </nav>
  );
}

export function SchemeToggle() {
  const { setColorScheme } = useMantineColorScheme();
  const dark = useComputedColorScheme("light") === "dark";
  return (
    <ActionIcon
      variant="subtle"
      color="gray"
      c="var(--text-2)"
      size="lg"
      aria-label={dark ? "Light colours" : "Dark colours"}
      title={dark ? "Light colours" : "Dark colours"}
      onClick={() => setColorScheme(dark ? "light" : "dark")}
    >
      {dark ? <IconSun size={18} stroke={1.7} /> : <IconMoon size={18} stroke={1.7} />}
    </ActionIcon>
  );
}

async function signOut(everywhere: boolean): Promise<void> {
  try {
    await (everywhere ? identity.logOutEverywhere() : identity.logOut());
  } catch (error) {
    // Signed out here whatever the server says; only "everywhere" must not be pretended.
    if (everywhere) {
      showProblem(error);
      return;
    }
  }
  endSession();
}

function AccountMenu({ compact = false }: { compact?: boolean }) {
  const session = useSession();
  const navigate = useNavigate();
  const administrator = usePermission("admin.inspect");
  const { colorScheme, setColorScheme } = useMantineColorScheme();
  if (session === null) return null;
  const { account } = session;
  const tick = <IconCheck size={15} aria-label="chosen" />;
  return (
    <Menu position={compact ? "bottom-end" : "top-start"} width={240} shadow="md">
      <Menu.Target>
        <UnstyledButton className={compact ? classes.accountCompact : classes.account} aria-label={`Account of ${account.name}`}>
          <Avatar author={account} size={compact ? 30 : 36} />
          {!compact && (
            <span className={classes.accountText}>
              <span className={classes.accountName}>{account.name}</span>
              <span className={classes.accountHandle}>@{account.handle}</span>
            </span>
          )}
        </UnstyledButton>
      </Menu.Target>
      <Menu.Dropdown>
        <Menu.Item leftSection={<IconUser size={16} />} onClick={() => navigate(`/u/${account.handle}`)}>
          Profile
        </Menu.Item>
        {compact && (
          <>
            <Menu.Item leftSection={<IconBookmark size={16} />} onClick={() => navigate("/bookmarks")}>
              Bookmarks
            </Menu.Item>
            <Menu.Item leftSection={<IconBox size={16} />} onClick={() => navigate("/glass/feed")}>
              Glass box
            </Menu.Item>
            {administrator === true && (
              <Menu.Item leftSection={<IconActivity size={16} />} onClick={() => navigate("/admin")}>
                Admin
              </Menu.Item>
            )}
          </>
        )}
        <Menu.Item leftSection={<IconSettings size={16} />} onClick={() => navigate("/settings")}>
          Settings
        </Menu.Item>
        <Menu.Divider />
        <Menu.Label>Colours</Menu.Label>
        <Menu.Item leftSection={<IconDeviceDesktop size={16} />} rightSection={colorScheme === "auto" && tick} onClick={() => setColorScheme("auto")}>
          As the system
        </Menu.Item>
        <Menu.Item leftSection={<IconSun size={16} />} rightSection={colorScheme === "light" && tick} onClick={() => setColorScheme("light")}>
          Light
        </Menu.Item>
        <Menu.Item leftSection={<IconMoon size={16} />} rightSection={colorScheme === "dark" && tick} onClick={() => setColorScheme("dark")}>
          Dark
        </Menu.Item>
        <Menu.Divider />
        {session.borrowed === true ? (
          <Menu.Item leftSection={<IconLogout size={16} />} onClick={endSession}>
            Stop acting as @{account.handle}
          </Menu.Item>
        ) : (
          <>
            <Menu.Item leftSection={<IconLogout size={16} />} onClick={() => void signOut(false)}>
              Sign out
            </Menu.Item>
            <Menu.Item leftSection={<IconLogout size={16} />} onClick={() => void signOut(true)}>
              Sign out everywhere
            </Menu.Item>
          </>
        )}
      </Menu.Dropdown>
    </Menu>
  );
}
