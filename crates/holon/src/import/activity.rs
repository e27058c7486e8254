//! Likes and reposts that the files do not hold, so that a demo is alive: always the same for the same files.

use super::mix;

const LIKES: u64 = 0x11c;
const REPOSTS: u64 = 0x4e9;

/// The posts (by number) that a person likes: up to `likes` of those by `friends`, each a post of its own.
pub fn liked_by(person: usize, friends: &[u32], posts_of: &[Vec<usize>], likes: usize) -> Vec<usize> {
    let mut chosen = Vec::with_capacity(likes);
    for draw in 0..likes {
        let seed = mix(person as u64, LIKES + draw as u64);
        if let Some(post) = post_of_a_friend(seed, friends, posts_of)
            && !chosen.contains(&post)
        {
            chosen.push(post);
        }
    }
    chosen
}

/// Who reposts what: about `reposts` pairs of a person and a post by one of their friends.
pub fn reposts(graph_friends: &[&[u32]], posts_of: &[Vec<usize>], reposts: usize) -> Vec<(usize, usize)> {
    let people = graph_friends.len();
    let mut chosen = Vec::with_capacity(reposts);
    for draw in 0..reposts {
        let seed = mix(draw as u64, REPOSTS);
        let person = (seed >> 40) as usize % people.max(1);
        if let Some(post) = post_of_a_friend(mix(seed, 1), graph_friends[person], posts_of) {
            chosen.push((person, post));
        }
    }
    chosen.sort_unstable();
    chosen.dedup();
    chosen
}

/// Leans towards a friend's first post, so that some posts are liked by many.
fn post_of_a_friend(seed: u64, friends: &[u32], posts_of: &[Vec<usize>]) -> Option<usize> {
    if friends.is_empty() {
        return None;
    }
    // The smaller of two draws: low numbers, who are the hubs of the graph's circles, come up more often.
    let draws = [seed as u32, (seed >> 32) as u32].map(|draw| draw as usize % friends.len());
    let friend = friends[draws[0].min(draws[1])] as usize;
    let posts = &posts_of[friend];
    let pick = (seed >> 20) as usize % 3;
    posts.get(pick).or(posts.first()).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_like_and_repost_friends_only_and_each_post_once() {
        let friends: [&[u32]; 4] = [&[1, 2], &[0], &[0], &[]];
        let posts_of = vec![vec![0, 4], vec![1], vec![2], vec![3]];
        let liked = liked_by(0, friends[0], &posts_of, 20);
        assert!(!liked.is_empty() && liked.len() <= 2);
        assert!(liked.iter().all(|post| [1, 2].contains(post)));
        assert!(liked_by(3, friends[3], &posts_of, 20).is_empty());
        let reposts = reposts(&friends, &posts_of, 100);
        assert!(!reposts.is_empty());
        assert!(reposts.iter().all(|(person, post)| match person {
            0 => [1, 2].contains(post),
            1 | 2 => [0, 4].contains(post),
            _ => false,
        }));
    }
}
