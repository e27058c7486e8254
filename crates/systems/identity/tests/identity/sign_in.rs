//! Signing in and out, refresh tokens, sessions, lockout.

use crate::world::{Answer, Node, PASSWORD, World};
use serde_json::{Value, json};

const DAY: u64 = 86_400;

async fn refresh(node: &Node, token: &str) -> Answer {
    node.post("/tokens/refresh")
        .json(json!({"refreshToken": token}))
        .send()
        .await
}

async fn is_signed_in(node: &Node, token: &str) -> bool {
    let answer = node.get("/me").token(token).send().await;
    assert!(answer.status == 200 || answer.status == 401, "{answer:?}");
    answer.status == 200
}

#[tokio::test]
async fn a_login_gives_a_token_for_fifteen_minutes() {
    let world = World::start().await;
    let account = world.node.sign_up("ada").await;
    let login = world.node.login("Ada").await;
    assert_eq!(login.header("cache-control"), "no-store");
    assert_eq!(
        (&login.body["tokenType"], &login.body["expiresIn"]),
        (&json!("Bearer"), &json!(900))
    );
    assert_eq!(login.body["account"], account);
    let token = login.text("accessToken");
    world.advance(899);
    assert!(is_signed_in(&world.node, &token).await);
    world.advance(1);
    let late = world.node.get("/me").token(&token).send().await;
    assert_eq!((late.status.as_u16(), late.problem()), (401, "token-expired"));
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_handle_get_the_same_answer() {
    let world = World::start().await;
    world.node.sign_up("ada").await;
    let without_password = json!({"handle": "bob"});
    world
        .node
        .post("/accounts")
        .token(&world.admin)
        .json(without_password)
        .send()
        .await
        .expect(201);
    let mut answers: Vec<Value> = Vec::new();
    for (handle, password) in [
        ("ada", "not it at all"),
        ("nobody", PASSWORD),
        ("bob", PASSWORD),
        ("b@d!", "x"),
        ("", ""),
    ] {
        let login = json!({"handle": handle, "password": password});
        let mut answer = world.node.post("/login").json(login).send().await.expect(401);
        answer.as_object_mut().unwrap().remove("requestId");
        answers.push(answer);
    }
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:?}");
}

#[tokio::test]
async fn refresh_tokens_rotate_and_a_second_use_ends_the_session() {
    let world = World::start().await;
    world.node.sign_up("ada").await;
    let login = world.node.login("ada").await;
    let other_session = world.node.login("ada").await;
    let first = login.text("refreshToken");
    world.advance(600);
    let second = refresh(&world.node, &first).await;
    let (access, second) = (second.text("accessToken"), second.text("refreshToken"));
    assert_ne!(first, second);

    // The answer was lost and the client asks again at once: the same successor, no second line.
    world.advance(5);
    let repeated = refresh(&world.node, &first).await;
    assert_eq!(repeated.text("refreshToken"), second);
    assert!(is_signed_in(&world.node, &access).await);

    let third = refresh(&world.node, &second).await.text("refreshToken");
    // The first is now two uses old: it was stolen, or its successor was.
    let reused = refresh(&world.node, &first).await;
    assert_eq!(
        (reused.status.as_u16(), reused.problem()),
        (401, "bad-refresh-token")
    );
    assert!(
        !is_signed_in(&world.node, &access).await,
        "ended at once, also for tokens that were given"
    );
    assert_eq!(refresh(&world.node, &third).await.status, 401, "the whole family");
    assert!(
        is_signed_in(&world.node, &other_session.text("accessToken")).await,
        "and only it"
    );
}

#[tokio::test]
async fn a_refresh_token_that_comes_back_late_ends_the_session_and_a_made_up_one_does_not() {
    let world = World::start().await;
    world.node.sign_up("ada").await;
    let first = world.node.login("ada").await.text("refreshToken");
    let second = refresh(&world.node, &first).await;
    let forged = format!(
        "{}AAAA",
        &second.text("refreshToken")[..second.text("refreshToken").len() - 4]
    );
    for bad in [forged.as_str(), "", "hr_", "rubbish"] {
        assert_eq!(refresh(&world.node, bad).await.status, 401);
    }
    assert!(is_signed_in(&world.node, &second.text("accessToken")).await);
    world.advance(11);
    assert_eq!(refresh(&world.node, &first).await.status, 401);
    assert!(!is_signed_in(&world.node, &second.text("accessToken")).await);
}

#[tokio::test]
async fn many_refreshes_at_once_give_one_successor() {
    let world = World::start().await;
    world.node.sign_up("ada").await;
    let first = world.node.login("ada").await.text("refreshToken");
    let answers = futures::future::join_all((0..20).map(|_| refresh(&world.node, &first))).await;
    let next: std::collections::HashSet<String> =
        answers.iter().map(|answer| answer.text("refreshToken")).collect();
    assert_eq!(next.len(), 1);
}

#[tokio::test]
async fn signing_out_ends_the_session_at_once_and_on_every_node() {
    let world = World::start().await;
    world.node.sign_up("ada").await;
    let other_node = world.other_node(None);
    let login = world.node.login("ada").await;
    let (token, refresh_token) = (login.text("accessToken"), login.text("refreshToken"));
    let other = world.node.login("ada").await.text("accessToken");
    assert!(is_signed_in(&world.node, &token).await && is_signed_in(&other_node, &token).await);

    world.node.post("/logout").token(&token).send().await.expect(204);
    assert!(!is_signed_in(&world.node, &token).await);
    assert_eq!(refresh(&world.node, &refresh_token).await.status, 401);
    // The clock stands still, so what the other node forgets it forgets because it was told.
    holon_testkit::eventually(
        "the other node to hear of it",
        holon_testkit::PATIENCE,
        || async { (!is_signed_in(&other_node, &token).await).then_some(()) },
    )
    .await;
    assert!(is_signed_in(&world.node, &other).await);

    world
        .node
        .post("/logout/all")
        .token(&other)
        .send()
        .await
        .expect(204);
    assert!(!is_signed_in(&world.node, &other).await);
}

#[tokio::test]
async fn sessions_are_listed_and_ended_one_by_one() {
    let world = World::start().await;
    world.node.sign_up("ada").await;
    let login = json!({"handle": "ada", "password": PASSWORD});
    let phone = world
        .node
        .post("/login")
        .from("203.0.113.9")
        .header("user-agent", "phone")
        .json(login);
    let phone = phone.send().await.text("accessToken");
    world.advance(60);
    let laptop = world.node.login("ada").await.text("accessToken");
    let listed = world
        .node
        .get("/me/sessions")
        .token(&laptop)
        .send()
        .await
        .expect(200);
    let sessions = listed["items"].as_array().unwrap();
    assert_eq!(sessions.len(), 2);
    assert_eq!(
        (&sessions[0]["current"], &sessions[1]["current"]),
        (&json!(true), &json!(false))
    );
    assert_eq!(
        (&sessions[1]["userAgent"], &sessions[1]["address"]),
        (&json!("phone"), &json!("203.0.113.9"))
    );

    let stranger = world.node.member("eve").await;
    let path = format!("/me/sessions/{}", sessions[1]["id"].as_str().unwrap());
    world.node.delete(&path).token(&stranger).send().await.expect(404);
    assert!(is_signed_in(&world.node, &phone).await);
    world.node.delete(&path).token(&laptop).send().await.expect(204);
    assert!(!is_signed_in(&world.node, &phone).await);
    world.node.delete(&path).token(&laptop).send().await.expect(404);
}

#[tokio::test]
async fn a_session_lives_as_long_as_it_is_used() {
    let world = World::start().await;
    world.node.sign_up("ada").await;
    let mut token = world.node.login("ada").await.text("refreshToken");
    for _ in 0..3 {
        world.advance(29 * DAY);
        token = refresh(&world.node, &token).await.text("refreshToken");
    }
    world.advance(30 * DAY + 1);
    assert_eq!(refresh(&world.node, &token).await.status, 401);
}

#[tokio::test]
async fn a_new_password_ends_the_other_sessions() {
    let world = World::start().await;
    world.node.sign_up("ada").await;
    let here = world.node.login("ada").await.text("accessToken");
    let there = world.node.login("ada").await.text("accessToken");
    let change = |current: &str, new: &str| {
        let change = json!({"current": current, "new": new});
        world.node.put("/me/password").token(&here).json(change).send()
    };
    let refused = change("wrong horse", "another long one").await;
    assert_eq!(
        (refused.status.as_u16(), refused.problem()),
        (403, "wrong-password")
    );
    assert_eq!(change(PASSWORD, "password123").await.status, 422);
    assert!(is_signed_in(&world.node, &there).await);
    change(PASSWORD, "another long one").await.expect(204);
    assert!(is_signed_in(&world.node, &here).await && !is_signed_in(&world.node, &there).await);
    world
        .node
        .post("/login")
        .json(json!({"handle": "ada", "password": PASSWORD}))
        .send()
        .await
        .expect(401);
    let login = json!({"handle": "ada", "password": "another long one"});
    world.node.post("/login").json(login).send().await.expect(200);
}

async fn guess(node: &Node, handle: &str, address: &str) -> Answer {
    let login = json!({"handle": handle, "password": "a guess of many"});
    node.post("/login").from(address).json(login).send().await
}

#[tokio::test]
async fn guessing_gets_slow_and_locks_no_owner_out() {
    let world = World::start().await;
    world.node.sign_up("ada").await;
    let login = json!({"handle": "ada", "password": PASSWORD});
    let known = world
        .node
        .post("/login")
        .from("192.0.2.1")
        .json(login.clone())
        .send()
        .await;
    let device = known.header("x-device").to_owned();
    assert!(known.header("set-cookie").contains("HttpOnly"));

    for stranger in 0..1_000_u32 {
        let address = format!("198.51.{}.{}", stranger % 25, stranger / 25);
        let answer = guess(&world.node, "ada", &address).await;
        assert!(answer.status == 401 || answer.status == 429, "{answer:?}");
    }
    // The owner's device, from anywhere, also from a network that is slowed.
    let from = |address: &str, name: &str, value: String| {
        world
            .node
            .post("/login")
            .from(address)
            .header(name, &value)
            .json(login.clone())
            .send()
    };
    from("198.51.3.77", "x-device", device.clone()).await.expect(200);
    from("198.51.4.77", "cookie", format!("a=b; holon_device={device}"))
        .await
        .expect(200);
    // The owner on a new device, in a network that nobody guessed from.
    world
        .node
        .post("/login")
        .from("192.0.2.99")
        .json(login.clone())
        .send()
        .await
        .expect(200);
    // A made-up device, or another account's, is none.
    world.node.sign_up("eve").await;
    let eves = world.node.login("eve").await.header("x-device").to_owned();
    from("198.51.3.77", "x-device", eves).await.expect(429);

    let inside = world
        .node
        .get("/inspect")
        .token(&world.admin)
        .send()
        .await
        .expect(200);
    assert!(
        inside["lockouts"]
            .as_array()
            .unwrap()
            .iter()
            .any(|slowed| slowed["network"] == "198.51.3.0/24")
    );
}

#[tokio::test]
async fn each_failure_doubles_the_wait() {
    let world = World::start().await;
    world.node.sign_up("ada").await;
    for _ in 0..5 {
        assert_eq!(guess(&world.node, "ada", "203.0.113.5").await.status, 401);
    }
    for wait in [1, 2, 4, 8, 16, 32, 64] {
        let slowed = guess(&world.node, "ada", "203.0.113.6").await;
        assert_eq!(
            (slowed.status.as_u16(), slowed.header("retry-after")),
            (429, wait.to_string().as_str())
        );
        world.advance(wait);
        assert_eq!(guess(&world.node, "ada", "203.0.113.7").await.status, 401);
    }
    // An unknown handle is slowed the same way, or the difference would tell.
    for _ in 0..5 {
        assert_eq!(guess(&world.node, "nobody", "203.0.114.5").await.status, 401);
    }
    assert_eq!(guess(&world.node, "nobody", "203.0.114.5").await.status, 429);
}
