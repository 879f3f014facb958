//! A TUN device in a network namespace.

use std::{
    ffi::{c_char, c_short},
    fs::{File, OpenOptions},
    io,
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
};

use nix::{
    libc::{IFF_NO_PI, IFF_TUN, IFNAMSIZ, O_NONBLOCK},
    sched::{CloneFlags, setns},
};

/// `struct ifreq` as `TUNSETIFF` reads it.
#[repr(C)]
struct Request {
    name: [c_char; IFNAMSIZ],
    flags: c_short,
    rest: [u8; 22],
}

nix::ioctl_write_ptr_bad!(set_interface, nix::request_code_write!(b'T', 202, size_of::<nix::libc::c_int>()), Request);

/// Makes the device in a namespace of this name. Packets come and go without a header of TUN's own.
pub fn open(namespace: &str, device: &str) -> io::Result<File> {
    if device.is_empty() || device.len() >= IFNAMSIZ {
        return Err(io::Error::other(format!("`{device}` is no name for a device")));
    }
    let own = File::open("/proc/self/ns/net")?;
    setns(File::open(format!("/run/netns/{namespace}"))?, CloneFlags::CLONE_NEWNET)?;
    let opened = make(device);
    setns(own, CloneFlags::CLONE_NEWNET)?;
    opened
}

fn make(device: &str) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).custom_flags(O_NONBLOCK).open("/dev/net/tun")?;
    let mut request = Request { name: [0; IFNAMSIZ], flags: (IFF_TUN | IFF_NO_PI) as c_short, rest: [0; 22] };
    for (to, from) in request.name.iter_mut().zip(device.bytes()) {
        *to = from as c_char;
    }
    // SAFETY: the request is laid out as the kernel reads it, and lives through the call.
    unsafe { set_interface(file.as_raw_fd(), &request) }?;
    Ok(file)
}
