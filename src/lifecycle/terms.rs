//! What a lifecycle is told, what it asks for, and where it can be.

use std::time::Duration;

/// Where a generation is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum LifeState {
    /// Sockets are taken; the application has not said that it is ready.
    Starting,
    /// A successor that said it is ready, and waits for the switch.
    Standby,
    /// A successor that accepts, and is not main yet.
    Trial,
    /// Main, and nothing else is going on.
    Serving,
    /// Main, with a next generation on its way.
    Reloading(ReloadPhase),
    /// The service manager was told of the new main; waiting until it has surely read that.
    HandingOver,
    /// Not main any more: finishing what was accepted.
    Draining,
    /// Main, and the service is started anew afterwards: serving on until what was in hand is
    /// finished.
    Leaving,
    /// Main, and the service stops: finishing what was accepted.
    Stopping,
    /// Over; the process may go.
    Exited,
}

impl LifeState {
    /// Whether the generation is the main one of its worker, and not about to go.
    #[cfg(feature = "supervise")]
    pub(crate) fn is_main(self) -> bool {
        matches!(self, Self::Serving | Self::Reloading(_) | Self::HandingOver)
    }

    /// As a status says it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Standby => "standby",
            Self::Trial => "trial",
            Self::Serving => "serving",
            Self::Reloading(_) => "reloading",
            Self::HandingOver => "handing over",
            Self::Draining => "draining",
            Self::Leaving => "leaving",
            Self::Stopping => "stopping",
            Self::Exited => "exited",
        }
    }
}

/// How far a reload has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ReloadPhase {
    /// The next generation was started; it has not said that it is ready.
    Spawned,
    /// It is ready and was told to accept; it has not confirmed that it does.
    Ready,
    /// It accepts; our own gate is being shut.
    Switched,
    /// It accepts and we do not; it may still fail at no cost.
    Probation,
}

/// One reload request, whoever made it; answered exactly once.
pub(crate) type RequestId = u64;

/// What can happen to a generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// The application is ready to serve.
    Started,
    /// SIGHUP or a method call.
    Reload(RequestId),
    /// SIGTERM, SIGINT or a method call.
    Stop,
    /// As `Stop`, and the service manager starts the service anew afterwards: connections are kept
    /// for that.
    Restart,
    /// What was in hand when a restart began is finished, or takes too long.
    Settled,
    /// The connections that can be are kept for the next start, whose clients wait for it.
    Kept,
    /// SIGQUIT: cut everything now.
    Quit,
    /// The next generation says that it is ready.
    NextReady,
    /// The next generation says that it accepts.
    NextSwitched,
    /// The next generation could not be started, said that it failed, closed its end, or exited.
    NextFailed(String),
    /// No next generation is needed: this one has changed its settings by itself.
    ReloadedInPlace,
    /// Our accept loops have stopped.
    GateShut,
    /// The service manager has read everything sent so far (or will not say so in time).
    Barrier,
    /// The previous generation says: accept.
    Switch,
    /// The previous generation says: you are main. It passes on what it was asked for meanwhile.
    Main {
        /// A reload was asked for during the handover.
        reload: bool,
        /// A stop was asked for during the handover.
        stop: bool,
    },
    /// The previous generation says: not you.
    Dismissed,
    /// The previous generation is gone without a word.
    PredecessorGone,
    /// We handed over, and the generation that we handed to is gone.
    SuccessorGone,
    /// The main generation says: too many drain at once, end your linger.
    Hurry,
    /// The drain is over: nothing is open any more.
    Drained,
}

/// What the driver must do, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// `READY=1`.
    TellReady,
    /// `RELOADING=1` with `MONOTONIC_USEC`.
    TellReloading,
    /// `READY=1`, and why the reload failed.
    TellRolledBack(String),
    /// `READY=1`: the reload is over, and this generation is still the one.
    TellReloadedInPlace,
    /// `MAINPID` of the next generation and `READY=1` in one datagram, then a barrier.
    TellHandover,
    /// `MAINPID` of ourselves and `READY=1`: whoever was named before is gone.
    TellReclaim,
    /// `STOPPING=1`.
    TellStopping,
    /// Start the next generation.
    Spawn,
    /// Tell the next generation to accept.
    SendSwitch,
    /// Tell the next generation that it is main.
    SendMain {
        /// It shall reload once more.
        reload: bool,
        /// It shall stop.
        stop: bool,
    },
    /// LifeEnd the next generation: dismiss it, SIGTERM, and after the grace SIGKILL.
    EndNext {
        /// How long it may take to end.
        grace: Duration,
    },
    /// Tell the previous generation that we are ready.
    SayReady,
    /// Tell the previous generation that we accept.
    SaySwitched,
    /// Accept.
    OpenGate,
    /// Stop accepting; the listeners stay open. Answered by [`Event::GateShut`].
    ShutGate,
    /// We are main: ping the watchdog, keep the number of drainers in its bounds.
    BecomeMain,
    /// Serve on until what is in hand is finished. Answered by [`Event::Settled`].
    Settle,
    /// Begin the drain. Answered by [`Event::Drained`].
    BeginDrain {
        /// How long idle connections are kept for one more request.
        linger: Duration,
    },
    /// LifeEnd the linger.
    Hurry,
    /// Cut what is left, count and log it.
    Hammer,
    /// These requests have their answer.
    Answer(Vec<RequestId>, ReloadAnswer),
    /// The generation is over.
    Exit(LifeEnd),
}

/// The answer to a reload request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ReloadAnswer {
    /// The next generation is main.
    HandedOver,
    /// The next generation failed; this one serves on.
    RolledBack(String),
    /// This generation has changed its settings; there is no next one.
    InPlace,
    /// The reload of before ended in a handover; the new main runs this one.
    PassedOn,
    /// This generation cannot reload any more.
    Refused(&'static str),
}

/// Why a generation is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LifeEnd {
    /// It handed over, or was told to stop, and finished what it had accepted.
    Done,
    /// As `Done`, but what was left had to be cut.
    Hammered,
    /// It never came to serve.
    Failed(&'static str),
}

/// The deadlines, and whether somebody tracks our main process.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) ready_timeout: Duration,
    pub(crate) switch_timeout: Duration,
    pub(crate) probation: Duration,
    pub(crate) handover_timeout: Duration,
    pub(crate) standby_timeout: Duration,
    pub(crate) drain_timeout: Duration,
    pub(crate) hurry_timeout: Duration,
    pub(crate) end_timeout: Duration,
    pub(crate) linger: Duration,
    pub(crate) stop_linger: Duration,
    /// A service manager watches the main process and restarts the service.
    pub(crate) managed: bool,
    /// A previous generation started us.
    pub(crate) successor: bool,
}
