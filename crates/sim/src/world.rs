//! One cluster on virtual time: the store, the API server in front of it, scheduler, controllers and hollow nodes, each of which can be ended and started anew.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use api::Clock;
use client::Client;
use jiff::{SignedDuration, Timestamp};
use node::hollow;
use server::{Api, NodeDialer, TokenKey};
use store::{Embedded, Fault, Faults};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::ledger::Ledger;
use crate::network::{Door, Link, Odds, Way, Weather};
use crate::random::Random;

/// When every simulation begins: 2026-01-01T00:00:00Z.
const EPOCH_SECONDS: i64 = 1_767_225_600;
/// Each node's pods have a /24 of their own.
const FIRST_POD_ADDRESS: u32 = 0x0A80_0000;

/// The time of the simulation's runtime, which stands still while anything is to be done.
pub struct VirtualClock {
    start: Instant,
}

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        let elapsed = SignedDuration::try_from(self.start.elapsed()).unwrap_or(SignedDuration::ZERO);
        Timestamp::from_second(EPOCH_SECONDS).and_then(|epoch| epoch.checked_add(elapsed)).unwrap_or(Timestamp::MAX)
    }
}

/// The disk: writes fail once in so many times.
struct Disk {
    random: Random,
    odds: AtomicU32,
}

impl Faults for Disk {
    fn write(&self, _bytes: usize) -> Option<Fault> {
        self.random.once_in(self.odds.load(Ordering::Relaxed)).then(|| Fault::Fail(std::io::Error::from(std::io::ErrorKind::StorageFull)))
    }
}

/// A component that runs, and how to end it.
struct Running {
    task: AbortHandle,
    life: Link,
}

impl Running {
    fn end(&self) {
        // Requests on their way and what it spawned reach nobody any more.
        self.life.set(false);
        self.task.abort();
    }
}

pub struct World {
    pub store: Arc<Embedded>,
    pub clock: Arc<VirtualClock>,
    pub random: Random,
    pub ledger: Arc<Ledger>,
    pub weather: Weather,
    pub lossy: Arc<AtomicBool>,
    door: Door,
    disk: Arc<Disk>,
    config: server::Config,
    scheduler: Option<Running>,
    controllers: Option<Running>,
    nodes: Vec<(Link, Option<Running>)>,
    control_plane: Link,
}

impl World {
    pub async fn start(random: Random, nodes: usize) -> Result<Self, Box<dyn std::error::Error>> {
        let disk = Arc::new(Disk { random: random.fork("disk"), odds: AtomicU32::new(0) });
        let store = Embedded::open(store::Config { faults: Some(disk.clone()), ..store::Config::memory() })?;
        let key = TokenKey::from_pkcs8(&TokenKey::generate()?)?;
        let mut config = server::Config::new(Arc::new(key), "simulated".to_owned());
        config.advertise_address = Ipv4Addr::new(192, 0, 2, 1).into();
        let mut world = Self {
            store: Arc::new(store),
            clock: Arc::new(VirtualClock { start: Instant::now() }),
            ledger: Arc::default(),
            weather: Arc::new(watch::channel(Odds::QUICK).0),
            lossy: Arc::default(),
            door: Door::default(),
            disk,
            config,
            scheduler: None,
            controllers: None,
            nodes: (0..nodes).map(|_| (Link::default(), None)).collect(),
            control_plane: Link::default(),
            random,
        };
        world.door.set(Some(world.open_api().await?));
        world.start_scheduler();
        world.start_controllers();
        (0..nodes).for_each(|number| world.start_node(number));
        Ok(world)
    }

    fn way(&self, component: &str, link: &Link, life: &Link) -> Way {
        Way {
            component: component.to_owned(),
            door: self.door.clone(),
            link: link.clone(),
            life: life.clone(),
            weather: self.weather.clone(),
            random: self.random.fork(component),
            ledger: self.ledger.clone(),
            lossy: self.lossy.clone(),
        }
    }

    /// A client in the same weather as everyone else.
    pub fn client(&self, name: &str) -> Client {
        Client::new(Arc::new(self.way(name, &Link::default(), &Link::default())), name)
    }

    async fn open_api(&self) -> Result<Arc<Api>, server::OpenError> {
        let random = self.random.fork("api");
        let chance: server::Chance = Arc::new(move |buffer: &mut [u8]| random.fill(buffer));
        Api::open(self.store.clone(), self.clock.clone(), chance, self.config.clone(), Arc::new(NodeDialer)).await
    }

    /// Another API server over the same store. A disk that fails may keep it from starting: it tries until it does, as a supervisor would.
    pub async fn start_api(&mut self) {
        loop {
            match self.open_api().await {
                Ok(api) => return self.door.set(Some(api)),
                Err(error) => tracing::info!(%error, "the API server does not start"),
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    pub fn stop_api(&mut self) {
        self.door.set(None);
    }

    pub fn start_scheduler(&mut self) {
        let life = Link::default();
        let client = Client::new(Arc::new(self.way("system:kube-scheduler", &self.control_plane, &life)), "kube-scheduler");
        let clock = self.clock.clone();
        let task = tokio::spawn(async move {
            let (_stop, stopped) = watch::channel(false);
            scheduler::run(client, clock, Arc::default(), stopped).await;
        });
        self.scheduler = Some(Running { task: task.abort_handle(), life });
    }

    pub fn stop_scheduler(&mut self) {
        self.scheduler.take().iter().for_each(Running::end);
    }

    pub fn start_controllers(&mut self) {
        let life = Link::default();
        let client = Client::new(Arc::new(self.way("system:kube-controller-manager", &self.control_plane, &life)), "kube-controller-manager");
        let config = controllers::Config { cluster_cidrs: Vec::new(), root_ca: "simulated".to_owned(), clock: self.clock.clone(), measured: Arc::default(), signer: None };
        let task = tokio::spawn(controllers::run(client, config, Box::pin(std::future::pending())));
        self.controllers = Some(Running { task: task.abort_handle(), life });
    }

    pub fn stop_controllers(&mut self) {
        self.controllers.take().iter().for_each(Running::end);
    }

    pub fn node_name(number: usize) -> String {
        format!("node{number}")
    }

    pub fn start_node(&mut self, number: usize) {
        let name = Self::node_name(number);
        let mut options = hollow::Options::new(vec![name.clone()]);
        options.first_address = Ipv4Addr::from(FIRST_POD_ADDRESS + ((number as u32) << 8));
        (options.start, options.stop) = (self.random.millis(50, 2500), self.random.millis(50, 2500));
        let life = Link::default();
        let client = Client::new(Arc::new(self.way(&format!("system:node:{name}"), &self.nodes[number].0, &life)), "kubelet");
        let task = tokio::spawn(hollow::run(client, self.clock.clone(), options));
        self.nodes[number].1 = Some(Running { task: task.abort_handle(), life });
    }

    pub fn stop_node(&mut self, number: usize) {
        self.nodes[number].1.take().iter().for_each(Running::end);
    }

    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    pub fn connect_node(&self, number: usize, up: bool) {
        self.nodes[number].0.set(up);
    }

    pub fn connect_control_plane(&self, up: bool) {
        self.control_plane.set(up);
    }

    pub fn fail_writes_once_in(&self, odds: u32) {
        self.disk.odds.store(odds, Ordering::Relaxed);
    }

    /// Mends everything and starts what does not run.
    pub async fn heal(&mut self) {
        self.weather.send_replace(Odds::QUICK);
        self.fail_writes_once_in(0);
        self.connect_control_plane(true);
        if !self.door.is_open() {
            self.start_api().await;
        }
        if self.scheduler.is_none() {
            self.start_scheduler();
        }
        if self.controllers.is_none() {
            self.start_controllers();
        }
        for number in 0..self.nodes.len() {
            self.connect_node(number, true);
            if self.nodes[number].1.is_none() {
                self.start_node(number);
            }
        }
    }
}
