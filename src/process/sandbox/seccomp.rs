//! The system-call filter: allows the calls that the program makes while it serves. All others fail
//! with EPERM, so that libraries use their fallbacks.

use std::collections::BTreeMap;

use nix::libc;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch, apply_filter,
};

/// Calls that are allowed with any arguments.
const ALLOWED: &[libc::c_long] = &[
    // Waiting.
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_ppoll,
    libc::SYS_futex,
    libc::SYS_restart_syscall,
    // Sockets.
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_recvfrom,
    libc::SYS_recvmmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    // Files that are read again, the user that may not read one, process statistics, the stamp of
    // the clock, and the log.
    libc::SYS_close,
    libc::SYS_faccessat,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_ftruncate,
    libc::SYS_getdents64,
    libc::SYS_geteuid,
    libc::SYS_ioctl,
    libc::SYS_lseek,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_pread64,
    libc::SYS_read,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_renameat2,
    libc::SYS_statx,
    libc::SYS_unlinkat,
    libc::SYS_write,
    libc::SYS_writev,
    // Memory.
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    // Time, random numbers, and limits.
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_gettimeofday,
    libc::SYS_nanosleep,
    libc::SYS_prlimit64,
    libc::SYS_uname,
    // Exit and abort.
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_tgkill,
];

#[cfg(not(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "riscv64"
)))]
compile_error!("the feature seccomp is for x86_64, aarch64 and riscv64");

/// Older forms of the calls, which newer architectures do not have.
#[cfg(target_arch = "x86_64")]
const ALLOWED_BEFORE: &[libc::c_long] = &[
    libc::SYS_epoll_wait,
    libc::SYS_lstat,
    libc::SYS_open,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_rename,
    libc::SYS_stat,
    libc::SYS_time,
    libc::SYS_unlink,
];
#[cfg(target_arch = "aarch64")]
const ALLOWED_BEFORE: &[libc::c_long] = &[libc::SYS_renameat];
#[cfg(target_arch = "riscv64")]
const ALLOWED_BEFORE: &[libc::c_long] = &[];

#[cfg(target_arch = "x86_64")]
const PROCESSOR: TargetArch = TargetArch::x86_64;
#[cfg(target_arch = "aarch64")]
const PROCESSOR: TargetArch = TargetArch::aarch64;
#[cfg(target_arch = "riscv64")]
const PROCESSOR: TargetArch = TargetArch::riscv64;

/// Calls with the protection of memory as third argument: executable memory is refused.
const ALLOWED_WITHOUT_CODE: &[libc::c_long] = &[libc::SYS_mmap, libc::SYS_mprotect];

/// Installs the filter for this thread and the threads that it starts. `may_listen` is set if a
/// listener is still to be opened.
pub(super) fn close(may_listen: bool) -> Result<(), seccompiler::Error> {
    apply_filter(&program(may_listen)?)
}

fn program(may_listen: bool) -> Result<BpfProgram, BackendError> {
    let listening = may_listen.then_some(&libc::SYS_listen);
    let any = ALLOWED.iter().chain(ALLOWED_BEFORE).chain(listening);
    let mut rules: BTreeMap<libc::c_long, Vec<SeccompRule>> =
        any.map(|call| (*call, Vec::new())).collect();
    let not_code = SeccompCmpOp::MaskedEq(number(libc::PROT_EXEC));
    for call in ALLOWED_WITHOUT_CODE {
        rules.insert(*call, vec![rule(2, not_code.clone(), 0)?]);
    }
    let families = [libc::AF_INET, libc::AF_INET6, libc::AF_UNIX];
    let families = families.map(|family| rule(0, SeccompCmpOp::Eq, number(family)));
    let families = families.into_iter().collect::<Result<_, _>>()?;
    rules.insert(libc::SYS_socket, families);
    let refused = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    SeccompFilter::new(rules, refused, SeccompAction::Allow, PROCESSOR)?.try_into()
}

/// Returns a rule that compares the argument at index `index`, from 0, with `number`.
fn rule(index: u8, operator: SeccompCmpOp, number: u64) -> Result<SeccompRule, BackendError> {
    let len = SeccompCmpArgLen::Dword;
    SeccompRule::new(vec![SeccompCondition::new(index, len, operator, number)?])
}

fn number(number: libc::c_int) -> u64 {
    number.unsigned_abs().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};

    #[test]
    fn only_a_process_with_late_listeners_can_listen() {
        for may_listen in [false, true] {
            let thread = std::thread::spawn(move || {
                close(may_listen).expect("the kernel accepts the filter");
                TcpListener::bind("127.0.0.1:0").is_ok()
            });
            let listens = thread.join().expect("the thread does not panic");
            assert_eq!(listens, may_listen);
        }
    }

    #[test]
    fn other_calls_are_refused() {
        // The filter applies to the thread only.
        let thread = std::thread::spawn(|| {
            let before = std::process::Command::new("true").status();
            close(false).expect("the kernel accepts the filter");
            let after = std::process::Command::new("true").status();
            let socket = UdpSocket::bind("127.0.0.1:0");
            (
                before.is_ok(),
                after.map_err(|e| e.raw_os_error()),
                socket.is_ok(),
            )
        });
        let (before, after, socket) = thread.join().expect("the thread does not panic");
        assert!(before);
        assert_eq!(after.unwrap_err(), Some(libc::EPERM));
        assert!(socket);
    }
}
