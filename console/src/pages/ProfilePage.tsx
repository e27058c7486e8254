import { ActionIcon, Menu, Tabs } from "@mantine/core";
import { useInfiniteQuery, useQuery, useQueryClient } from "@tanstack/react-query";
import {
  IconBox,
  IconCalendar,
  IconDots,
  IconFeather,
  IconUserOff,
  IconUserPlus,
  IconVolume,
  IconVolumeOff,
} from "@tabler/icons-react";
import { Link, useNavigate, useParams, useSearchParams } from "react-router";
import * as feed from "../api/feed";
import type { Profile } from "../api/types";
import { removeAuthor } from "../feed/cache";
import { FollowButton } from "../feed/FollowButton";
import { PostList } from "../feed/PostList";
import { fullNumber, month, shortNumber } from "../lib/format";
import { useAccount } from "../lib/hooks";
import { Avatar } from "../ui/Avatar";
import { showProblem } from "../ui/notify";
import { PageHeader } from "../ui/PageHeader";
import { Empty, Failure, RowSkeletons } from "../ui/States";
import classes from "./Profile.module.css";

export default function ProfilePage() {
  const { handle = "" } = useParams();
  const [parameters, setParameters] = useSearchParams();
  const replies = parameters.get("tab") === "replies";
  const profile = useQuery({
    queryKey: ["profile", handle],
    queryFn: ({ signal }) => feed.profile(handle, signal),
  });
  const posts = useInfiniteQuery({
    queryKey: ["user-posts", handle, replies],
    queryFn: ({ pageParam, signal }) => feed.userPosts(handle, replies, pageParam, signal),
    initialPageParam: undefined as string | undefined,
    getNextPageParam: (page) => page.next ?? undefined,
    enabled: profile.data !== undefined,
  });

  if (profile.data === undefined) {
    return (
      <>
        <PageHeader title={`@${handle}`} back />
        {profile.isError ? (
          <Failure error={profile.error} retry={() => void profile.refetch()} />
        ) : (
          <RowSkeletons count={3} height={56} />
        )}
      </>
    );
  }
  const person = profile.data;
  return (
    <>
      <PageHeader title={person.name} subtitle={`${fullNumber(person.counts.posts)} posts`} back />
      <Head person={person} />
      <Tabs
        value={replies ? "replies" : "posts"}
        onChange={(tab) => setParameters(tab === "replies" ? { tab: "replies" } : {}, { replace: true })}
        keepMounted={false}
      >
        <Tabs.List grow>
          <Tabs.Tab value="posts">Posts</Tabs.Tab>
          <Tabs.Tab value="replies">Posts and replies</Tabs.Tab>
        </Tabs.List>
        <Tabs.Panel value={replies ? "replies" : "posts"}>
          <PostList
            query={posts}
            label={`Posts by ${person.name}`}
            empty={<Empty icon={IconFeather} title={`@${person.handle} has not posted yet`} />}
          />
        </Tabs.Panel>
      </Tabs>
    </>
  );
}

function Head({ person }: { person: Profile }) {
  const client = useQueryClient();
  const own = useAccount().id === person.id;
  const viewer = person.viewer;
  const patch = (change: (profile: Profile) => Profile) =>
    client.setQueryData<Profile>(["profile", person.handle], (profile) => profile && change(profile));

  return (
    <div className={classes.head}>
      <div className={classes.top}>
        <Avatar author={person} size={76} />
        <div className={classes.buttons}>
          {own ? (
            <Link to="/settings" className={classes.edit ?? ""}>
              Edit the profile
            </Link>
          ) : (
            <>
              <RelationMenu person={person} />
              {viewer?.blocking !== true && (
                <FollowButton
                  person={person}
                  following={viewer?.following ?? false}
                  onChange={(following) =>
                    patch((profile) => ({
                      ...profile,
                      counts: { ...profile.counts, followers: profile.counts.followers + (following ? 1 : -1) },
                      viewer: profile.viewer && { ...profile.viewer, following },
                    }))
                  }
                />
              )}
            </>
          )}
        </div>
      </div>
      <h2 className={classes.name}>{person.name}</h2>
      <div className={classes.handle}>
        @{person.handle}
        {viewer?.followedBy === true && <span className={classes.chip}>Follows you</span>}
        {viewer?.muting === true && <span className={classes.chip}>Muted</span>}
        {viewer?.blocking === true && <span className={classes.chip}>Blocked</span>}
        {viewer?.blockedBy === true && <span className={classes.chip}>Blocks you</span>}
      </div>
      {person.bio !== "" && <p className={classes.bio}>{person.bio}</p>}
      <div className={classes.facts}>
        <Link to={`/u/${person.handle}/following`} className={classes.fact ?? ""}>
          <strong>{shortNumber(person.counts.following)}</strong> following
        </Link>
        <Link to={`/u/${person.handle}/followers`} className={classes.fact ?? ""}>
          <strong>{shortNumber(person.counts.followers)}</strong> {person.counts.followers === 1 ? "follower" : "followers"}
        </Link>
        <span className={classes.fact}>
          <IconCalendar size={15} stroke={1.7} aria-hidden="true" /> since {month(person.created)}
        </span>
      </div>
    </div>
  );
}

function RelationMenu({ person }: { person: Profile }) {
  const client = useQueryClient();
  const navigate = useNavigate();
  const viewer = person.viewer;

  const set = async (relation: "mutes" | "blocks", on: boolean) => {
    try {
      await feed.setRelation(relation, person.handle, on);
      if (on) removeAuthor(client, person.id);
      else void client.invalidateQueries({ queryKey: ["home"] });
      await client.invalidateQueries({ queryKey: ["profile", person.handle] });
    } catch (error) {
      showProblem(error);
    }
  };

  return (
    <Menu position="bottom-end" shadow="md" width={220}>
      <Menu.Target>
        <ActionIcon variant="default" radius="xl" size={30} aria-label="More">
          <IconDots size={17} />
        </ActionIcon>
      </Menu.Target>
      <Menu.Dropdown>
        <Menu.Item
          leftSection={viewer?.muting ? <IconVolume size={16} /> : <IconVolumeOff size={16} />}
          onClick={() => void set("mutes", !viewer?.muting)}
        >
          {viewer?.muting ? "Unmute" : "Mute"} @{person.handle}
        </Menu.Item>
        <Menu.Item
          color={viewer?.blocking ? undefined : "var(--danger)"}
          leftSection={viewer?.blocking ? <IconUserPlus size={16} /> : <IconUserOff size={16} />}
          onClick={() => void set("blocks", !viewer?.blocking)}
        >
          {viewer?.blocking ? "Unblock" : "Block"} @{person.handle}
        </Menu.Item>
        <Menu.Divider />
        <Menu.Item leftSection={<IconBox size={16} />} onClick={() => navigate(`/glass/feed?user=${person.handle}`)}>
          See in the glass box
        </Menu.Item>
      </Menu.Dropdown>
    </Menu>
  );
}
