//! Invariant: options are whole at any time: a value that is refused changes nothing.

use std::ffi::c_char;
use std::sync::{Mutex, PoisonError};

use crate::error::{Failure, vmt_error};
use crate::guard::{Handle, Out, Owner, free, guarded, guarded_on};
use crate::option_table::{KEYS, Settings};
use crate::profile::vmt_profile;
use crate::status::vmt_status;
use crate::text::text;

/// Options for sessions, appliances, exports and publishing: keys with values, as vmt_option_key and vmt_option_help
/// tell them. A call takes of them what concerns it, and copies it. Where options are a parameter, NULL means all
/// defaults.
///
/// Keys of a session: listen, cache, download-limit, upload-limit, upload-slots, discovery, local-discovery, dht,
/// dht-bootstrap, utp, peer-exchange, profile-exchange, compression, compression-cache, max-connections, metadata-timeout,
/// max-disk. Of an appliance: state, ephemeral, mount, allow-other, peer, web-seed, fill, profile, auto-profile, record,
/// read-timeout, trace. Of vmt_publish: name, piece-size, tracker, web-seed, private, profile. Of vmt_export: cache,
/// read-timeout.
pub struct vmt_options {
    settings: Mutex<Settings>,
}

impl Handle for vmt_options {
    const NAME: &'static str = "options";

    fn owner(&self) -> Option<&Owner> {
        None
    }
}

/// What options say at this moment.
///
/// # Safety
/// `options` is NULL or a handle that is not freed before the call ends.
pub(crate) unsafe fn settings(options: *const vmt_options) -> Settings {
    // SAFETY: the caller's promise.
    unsafe { options.as_ref() }.map_or_else(Settings::default, |o| {
        o.settings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    })
}

/// Makes options with all defaults. The caller frees them.
///
/// Errors: VMT_E_NULL. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_options_new(
    options: *mut *mut vmt_options,
    error: *mut *mut vmt_error,
) -> vmt_status {
    // SAFETY: what the header asks of every caller.
    unsafe {
        guarded(error, || {
            Out::new(options, "options")?.give(vmt_options {
                settings: Mutex::default(),
            });
            Ok(())
        })
    }
}

/// Sets an option. The keys peer, tracker and web-seed add a value, the others replace it.
///
/// Errors: VMT_E_NULL, VMT_E_UTF8; VMT_E_INVALID for a key that does not exist and a value that makes no sense; the
/// message names the key and what would be good. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_options_set(
    options: *mut vmt_options,
    key: *const c_char,
    value: *const c_char,
    error: *mut *mut vmt_error,
) -> vmt_status {
    // SAFETY: what the header asks of every caller.
    unsafe {
        guarded_on(options, error, |options| {
            let (key, value) = (text(key, "key")?, text(value, "value")?);
            let mut settings = options
                .settings
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            set(&mut settings, key, value)
        })
    }
}

fn set(settings: &mut Settings, key: &str, value: &str) -> Result<(), Failure> {
    let known = KEYS.iter().find(|k| k.name.to_bytes() == key.as_bytes());
    let Some(known) = known else {
        let names: Vec<_> = KEYS.iter().map(|k| k.name.to_string_lossy()).collect();
        let names = names.join(", ");
        return Err(Failure::invalid(format!(
            "there is no option `{key}`: choose one of {names}"
        )));
    };
    (known.set)(settings, value)
        .map_err(|good| Failure::invalid(format!("the option `{key}` can't be {value:?}: {good}")))
}

/// Sets the profile of earlier runs that a launch uses, or that vmt_publish puts into the .torrent file: a copy of
/// what it holds now. NULL takes it back.
///
/// Errors: VMT_E_NULL. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_options_set_profile(
    options: *mut vmt_options,
    profile: *const vmt_profile,
    error: *mut *mut vmt_error,
) -> vmt_status {
    // SAFETY: what the header asks of every caller.
    unsafe {
        guarded_on(options, error, |options| {
            let profile = profile.as_ref().map(vmt_profile::copy);
            let mut settings = options
                .settings
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            settings.profile_file = None;
            settings.appliance.profile = profile;
            Ok(())
        })
    }
}

/// Frees options. NULL does nothing.
///
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_options_free(options: *mut vmt_options) {
    // SAFETY: what the header asks of every caller.
    unsafe { free(options) }
}

/// The key of an option: those from 0 on exist until NULL comes. The string is static.
///
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn vmt_option_key(index: usize) -> *const c_char {
    KEYS.get(index)
        .map_or(std::ptr::null(), |k| k.name.as_ptr())
}

/// What an option does, its unit and its default, in a few sentences for people. NULL when there is none of that
/// index. The string is static.
///
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn vmt_option_help(index: usize) -> *const c_char {
    KEYS.get(index)
        .map_or(std::ptr::null(), |k| k.help.as_ptr())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use vmtorrent::{Fill, State};

    #[test]
    fn every_option_of_the_library_can_be_set() {
        let mut s = Settings::default();
        for (key, value) in [
            ("listen", "127.0.0.1:7"),
            ("cache", "/c"),
            ("download-limit", "1"),
            ("upload-limit", "2"),
            ("upload-slots", "5"),
            ("discovery", "false"),
            ("local-discovery", "false"),
            ("dht", "false"),
            ("dht-bootstrap", "a:1"),
            ("dht-bootstrap", "b:2"),
            ("utp", "false"),
            ("peer-exchange", "false"),
            ("profile-exchange", "false"),
            ("compression", "false"),
            ("compression-cache", "5"),
            ("max-connections", "3"),
            ("metadata-timeout", "0"),
            ("max-disk", "4"),
            ("state", "/s"),
            ("mount", "/m"),
            ("allow-other", "true"),
            ("peer", "127.0.0.1:8"),
            ("peer", "[::1]:9"),
            ("fill", "full"),
            ("profile", "/p"),
            ("auto-profile", "false"),
            ("record", "/r"),
            ("read-timeout", "0.25"),
            ("trace", "/t"),
            ("name", "n"),
            ("piece-size", "16384"),
            ("tracker", "http://a/announce"),
            ("web-seed", "http://b/"),
            ("private", "true"),
        ] {
            set(&mut s, key, value).unwrap();
        }
        // Without `..`: a new option of the library is missed here by the compiler.
        let vmtorrent::SessionOptions {
            listen,
            cache,
            download_limit,
            upload_limit,
            upload_slots,
            discovery,
            local_discovery,
            dht,
            dht_bootstrap,
            utp,
            peer_exchange,
            profile_exchange,
            compression,
            compression_cache,
            max_connections,
            metadata_timeout,
            max_disk,
        } = s.session.clone();
        assert_eq!(listen.port(), 7);
        assert_eq!(dht_bootstrap.unwrap(), ["a:1", "b:2"]);
        assert_eq!(cache.unwrap().to_str(), Some("/c"));
        assert_eq!((download_limit, upload_limit), (Some(1), Some(2)));
        assert_eq!(upload_slots, Some(5));
        assert!(
            !discovery && !local_discovery && !dht && !utp && !peer_exchange && !profile_exchange
        );
        assert_eq!((compression, compression_cache), (false, 5));
        assert_eq!(
            (max_connections, metadata_timeout, max_disk),
            (3, None, Some(4))
        );
        let vmtorrent::ApplianceOptions {
            state,
            mount,
            allow_other,
            peers,
            web_seeds,
            fill,
            profile,
            auto_profile,
            record,
            read_timeout,
            trace,
        } = s.appliance.clone();
        assert_eq!(state, State::Directory("/s".into()));
        assert!(mount.is_some() && record.is_some() && trace.is_some() && profile.is_none());
        assert!(allow_other && !auto_profile);
        assert_eq!((peers.len(), fill), (2, Fill::Full));
        assert_eq!(web_seeds[0].as_str(), "http://b/");
        assert_eq!(read_timeout, Some(Duration::from_millis(250)));
        assert_eq!(s.export.read_timeout, read_timeout);
        assert_eq!(s.profile_file.as_deref(), Some("/p".as_ref()));
        assert_eq!(s.publish.piece_size, Some(16384));
        set(&mut s, "ephemeral", "true").unwrap();
        assert_eq!(s.appliance.state, State::Ephemeral);
        set(&mut s, "ephemeral", "false").unwrap();
        assert_eq!(s.appliance.state, State::Default);
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_the_key_and_a_remedy() {
        let mut s = Settings::default();
        for (key, value, remedy) in [
            ("listn", "x", "choose one of listen"),
            ("listen", "localhost", "192.0.2.7:6881"),
            ("upload-limit", "100mbit", "12500000"),
            ("upload-limit", "+1", "12500000"),
            ("upload-slots", "65536", "0 for no limit"),
            ("discovery", "yes", "true or false"),
            ("max-connections", "0", "from 1"),
            ("read-timeout", "-1", "0.5"),
            ("read-timeout", "inf", "0.5"),
            ("read-timeout", "nan", "0.5"),
            ("read-timeout", "1e999", "0.5"),
            ("fill", "some", "none, idle or full"),
            ("web-seed", "b", "https://"),
            ("state", "", "at least one"),
            ("piece-size", "64K", "65536"),
        ] {
            let message = set(&mut s, key, value).unwrap_err().into_error();
            let message = Box::into_raw(Box::new(message));
            // SAFETY: just made.
            let text = unsafe {
                let text = std::ffi::CStr::from_ptr(crate::error::vmt_error_message(message));
                let text = text.to_str().unwrap().to_owned();
                crate::error::vmt_error_free(message);
                text
            };
            assert!(text.contains(&format!("`{key}`")), "{text}");
            assert!(text.contains(remedy), "{text}");
        }
        assert_eq!(format!("{s:?}"), format!("{:?}", Settings::default()));
    }

    #[test]
    fn keys_are_listed_with_their_help() {
        let count = (0..).take_while(|i| !vmt_option_key(*i).is_null()).count();
        assert_eq!(count, KEYS.len());
        assert!((0..count).all(|i| !vmt_option_help(i).is_null()));
        assert!(vmt_option_help(count).is_null());
        for key in KEYS {
            let help = key.help.to_str().unwrap();
            assert!(help.contains("Default"), "{help}");
        }
    }
}
