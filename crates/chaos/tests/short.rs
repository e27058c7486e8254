//! A short round of `make chaos`: a cluster, a steady load, some faults in an order that the seed decides, and the check.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should fail")]

use holon_chaos::{
    faults::Fault,
    load::LoadOptions,
    round::{Round, Stage},
};
use holon_lab::{Cluster, ClusterOptions, binary_beside};
use rand::{SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use std::time::{Duration, Instant};

/// Those that end soonest and break most.
const FAULTS: [Fault; 3] = [Fault::NodeKilled, Fault::PostgresKilled, Fault::NatsKilled];
const BEFORE: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_or_doubled_whatever_dies() {
    let began = Instant::now();
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let work = tempfile::tempdir().unwrap();
    let options = holon_chaos::cluster(ClusterOptions::new(binary_beside().unwrap()));
    let cluster = Cluster::start(&options, &work.path().join("cluster"))
        .await
        .unwrap();
    println!("the cluster runs after {:.0} s", began.elapsed().as_secs_f64());
    let admin = cluster.admin_token().unwrap();
    let mut stage = Stage::new(cluster, None, admin, work.path()).await.unwrap();
    let mut faults = FAULTS;
    faults.shuffle(&mut random);
    let mut cohorts = Vec::new();
    for (number, fault) in faults.into_iter().enumerate() {
        let load = LoadOptions {
            people: 8,
            clients: 8,
            rate: 16.0,
            seed,
            name: format!("r{number}"),
        };
        let (round, cohort) = stage.round(fault, &load, BEFORE, &mut random).await.unwrap();
        println!("{round:#?}\nafter {:.0} s", began.elapsed().as_secs_f64());
        is_right(&round);
        cohorts.push(cohort);
    }
    for cohort in &mut cohorts {
        assert_eq!(stage.check_again(cohort).await.unwrap(), Vec::<String>::new());
    }
    stage.cluster.stop().await.unwrap();
}

fn is_right(round: &Round) {
    assert!(round.writes_acknowledged > 0, "nothing was done: {round:#?}");
    assert!(round.complaints.is_empty(), "{:#?}", round.complaints);
}
