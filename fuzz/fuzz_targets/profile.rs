//! Whatever bytes are given for a profile: it is refused, or it is one that can be written, read again, merged and used.
//! A second line is another one, which it is merged with.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vmtorrent::profile::Profile;

fuzz_target!(|data: &[u8]| {
    let mut lines = data.splitn(2, |byte| *byte == b'\n');
    let mut next = || Profile::from_json(lines.next()?).ok();
    let Some(profile) = next() else {
        return;
    };
    let other = next();
    for (_, _, access) in profile.in_order() {
        assert!(access.runs() > 0 && access.runs() <= profile.runs());
        assert!(access.min() as f64 <= access.mean() && access.mean() <= access.max() as f64);
        assert!(access.variance() >= 0.0);
    }
    let text = profile.to_json();
    let again = Profile::from_json(&text).expect("what was written can be read");
    assert_eq!(again.block_count(), profile.block_count());
    let mut sum = again.clone();
    sum.merge(&profile).expect("they are of one image");
    sum.merge_by_force(other.as_ref().unwrap_or(&again));
    Profile::from_json(&sum.to_json()).expect("what was merged can be read");
});
