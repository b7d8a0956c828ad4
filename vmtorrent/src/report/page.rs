//! Invariant: the page holds all that it shows: it asks for nothing elsewhere, and runs no script.

use std::fmt::Write;
use std::time::Duration;

use super::data::{Data, Known, Waits};
use super::timeline::{BANDS, bits};
use super::{curve, map, opening, timeline};
use crate::chart::Bytes;
use crate::chart::{COLOURS, Escaped, FRAME_STYLE, grouped, percent, seconds};

const STYLE: &str = "\
*{box-sizing:border-box}\
body{margin:0;background:var(--page);color:var(--text);font:15px/1.5 system-ui,'Segoe UI',Roboto,'DejaVu Sans',sans-serif}\
main{max-width:1180px;margin:0 auto;padding:28px 20px 48px}\
h1{font-size:25px;line-height:1.25;margin:0;overflow-wrap:anywhere}\
h2{font-size:18px;margin:40px 0 4px}\
h3{font-size:14px;margin:18px 0 0;font-weight:600}\
p{margin:6px 0;max-width:82ch}\
.soft{color:var(--soft);font-size:13.5px;overflow-wrap:anywhere}\
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:10px;margin:20px 0 10px}\
.tile{background:var(--card);border-radius:8px;padding:10px 14px}\
.tile b{display:block;font-size:21px;line-height:1.3;white-space:nowrap}\
.tile span{color:var(--soft);font-size:13px;display:block;line-height:1.35}\
.keys{display:flex;flex-wrap:wrap;gap:2px 18px;font-size:13.5px;color:var(--soft);max-width:none}\
.keys i{display:inline-block;width:11px;height:11px;border-radius:2px;margin-right:6px;box-shadow:0 0 0 1px var(--line)}\
.keys i.shade{opacity:.3}\
.keys i.thin{box-shadow:none;height:3px;width:16px;vertical-align:middle;border-radius:0}\
.keys i.thin.dash{height:0;width:22px;background:none!important;border-top:2px dashed var(--rate)}\
.plot{padding:26px 20px 48px 78px}\
.plot.map{padding:6px 20px 6px 78px}\
.share{display:flex;height:16px;border-radius:4px;overflow:hidden;background:var(--line);margin:8px 0 4px}\
.share b{display:block;min-width:1px}\
.bar{display:flex;gap:10px;align-items:center;font-size:14px;margin:3px 0}\
.bar span{white-space:nowrap}.bar>:first-child{flex:0 0 140px;color:var(--soft)}.bar b{height:14px;border-radius:3px;min-width:2px}\
table{border-collapse:collapse;font-size:14px;margin:8px 0;width:100%}\
th{text-align:left;font-weight:600;color:var(--soft);font-size:13px}\
td,th{padding:3px 14px 3px 0;border-bottom:1px solid var(--line);font-variant-numeric:tabular-nums;vertical-align:top;overflow-wrap:anywhere}\
.gantt td:nth-child(2),.gantt td:nth-child(3){white-space:nowrap}\
.gantt .wide{width:45%;padding-right:0}\
.gantt .wide div{position:relative;height:14px;margin-top:4px;overflow:hidden}\
.gantt .wide b{position:absolute;top:0;height:14px;border-radius:2px}\
.gantt .wide span{position:absolute;right:0;top:-3px;color:var(--soft);font-size:12px}\
.needed{stroke:var(--needed)}.fetched{stroke:var(--fetched)}.rate{stroke:var(--rate);stroke-dasharray:6 4}\
.gap{stroke:var(--text)}\
@media(max-width:640px){main{padding:18px 12px 32px}.plot{padding-left:62px;padding-right:10px}.plot.map{padding-left:62px;padding-right:10px}\
.gantt .wide{display:none}h1{font-size:20px}.tile b{font-size:18px}}\
@media print{main{max-width:none}h2{break-after:avoid}.plot,.tile{break-inside:avoid}}";

/// The page.
pub(crate) fn page(data: &Data) -> String {
    let name = Escaped(&data.image.name).to_string();
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{name}: a run from the swarm</title>\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\
         <style>{COLOURS}{FRAME_STYLE}{STYLE}</style></head><body><main>\n"
    );
    let _ = write!(
        html,
        "<h1>{name}</h1><p class=\"soft\">{} · info-hash {} · vmtorrent {}</p>",
        Bytes(data.image.length),
        Escaped(&data.image.info_hash),
        env!("CARGO_PKG_VERSION")
    );
    tiles(&mut html, data);
    line(&mut html, data);
    bands(&mut html, data);
    html.push_str("\n<h2>Time line</h2>");
    if data.log.truncated {
        html.push_str(
            "<p><b>More was read, or waited for, than a report keeps: what follows is incomplete, and the floor is too \
             small.</b></p>",
        );
    }
    html.push_str("<p class=\"keys\">");
    for (name, colour) in BANDS {
        key(&mut html, "", colour, name);
    }
    key(&mut html, "shade", "--stall", "the guest waits");
    let _ = write!(
        html,
        "</p><div class=\"plot\">{}</div><p class=\"keys\">",
        timeline::rates(data)
    );
    key(
        &mut html,
        "",
        "--hit",
        "first read of a block: its data was here",
    );
    key(
        &mut html,
        "",
        "--wait",
        "first read of a block: it had to wait",
    );
    key(&mut html, "shade", "--stall", "the guest waits");
    let _ = write!(
        html,
        "</p><div class=\"plot\">{}</div>",
        timeline::reads(data)
    );

    html.push_str("\n<h2>What was needed, and what came</h2>");
    html.push_str(&floor_text(data));
    html.push_str(&curve::comparison(data));
    html.push_str("<p class=\"keys\">");
    key(&mut html, "thin", "--needed", "needed by the guest's reads");
    key(&mut html, "thin", "--fetched", "fetched");
    if data.line.is_some() {
        key(
            &mut html,
            "thin dash",
            "--rate",
            "what the line gives from the guest's start on",
        );
    }
    let _ = write!(html, "</p><div class=\"plot\">{}</div>", curve::curve(data));

    let _ = write!(
        html,
        "\n<h2>The first two seconds</h2>{}\n<h2>The image</h2>{}\n</main></body></html>\n",
        opening::opening(data),
        map::map(data)
    );
    html
}

fn key(html: &mut String, class: &str, colour: &str, name: &str) {
    let _ = write!(
        html,
        "<span><i class=\"{class}\" style=\"background:var({colour})\"></i>{name}</span>"
    );
}

fn tiles(html: &mut String, data: &Data) {
    let (hits, needing) = data.hits();
    let expected = data.log.first_reads.iter().filter(|r| r.expected).count() as u64;
    let reads = data.log.first_reads.len() as u64;
    let in_log = data.wall().saturating_sub(data.recorded_from).as_micros();
    let waited = Waits::new(&data.log.stalls).until(u64::try_from(in_log).unwrap_or(u64::MAX));
    let before = data.phases.last().map_or(Duration::ZERO, |p| p.to);
    let guest = data
        .wall()
        .saturating_sub(before)
        .saturating_sub(Duration::from_micros(waited));
    let floor = data.floor();
    html.push_str("<div class=\"tiles\">");
    let mut tile = |value: String, what: String| {
        let _ = write!(
            html,
            "<div class=\"tile\"><b>{value}</b><span>{what}</span></div>"
        );
    };
    tile(
        seconds(data.wall()),
        format!(
            "in all: {} starting up, then the guest ran {}",
            seconds(before),
            seconds(guest)
        ),
    );
    tile(
        seconds(data.stalled()),
        format!(
            "waited for the swarm, by {} reads",
            grouped(data.stats.stalls)
        ),
    );
    tile(
        floor.map_or("not known".to_owned(), seconds),
        "floor: the least wait that a perfect profile leaves on this line".to_owned(),
    );
    tile(
        percent(hits, needing),
        format!(
            "of {} first reads of missing pieces found them fetched",
            grouped(needing)
        ),
    );
    if expected > 0 {
        tile(
            percent(expected, reads),
            format!(
                "of {} blocks that were read stood in the profile",
                grouped(reads)
            ),
        );
    }
    tile(
        Bytes(data.stats.distinct_read_bytes).to_string(),
        "in distinct blocks of 64 KiB were read of the image".to_owned(),
    );
    tile(
        Bytes(data.stats.fetched_bytes).to_string(),
        match data.stats.distinct_read_bytes {
            0 => "fetched".to_owned(),
            read => format!(
                "fetched: {:.2} times that",
                data.stats.fetched_bytes as f64 / read as f64
            ),
        },
    );
    html.push_str("</div>");
}

fn line(html: &mut String, data: &Data) {
    let text = match data.line {
        None => "The line's rate is not known, since nothing was fetched: name it (the option `report-rate`), and the \
                 report tells the floor."
            .to_owned(),
        Some(line) => {
            let rate = format!("{}, {}/s", bits(line.rate), Bytes(line.rate as u64));
            match line.known {
                Known::Named if data.stats.fetched_wire_bytes < data.stats.fetched_bytes => {
                    format!("Line: {rate}, as named by --report-rate and with what compression gained on it.")
                }
                Known::Named => format!("Line: {rate}, as named by --report-rate."),
                Known::BestSecond => format!(
                    "Line: {rate}, measured: the most payload that came within one second of this run. If the line \
                     gives more, the floor is smaller: name its rate (the option `report-rate`)."
                ),
                Known::Mean => format!(
                    "Line: {rate}, measured over the whole run, which was shorter than a second. Name its rate with \
                     --report-rate."
                ),
            }
        }
    };
    let _ = write!(html, "<p class=\"soft\">{text}</p>");
}

fn bands(html: &mut String, data: &Data) {
    let stats = &data.stats;
    let bytes = [
        stats.demand_bytes,
        stats.readahead_bytes,
        stats.profile_bytes,
        stats.background_bytes,
    ];
    let total: u64 = bytes.iter().sum();
    html.push_str("<h3>Fetched, by band</h3><div class=\"share\">");
    for ((_, colour), bytes) in BANDS.iter().zip(bytes).filter(|(_, bytes)| *bytes > 0) {
        let share = bytes as f64 / total as f64 * 100.0;
        let _ = write!(
            html,
            "<b style=\"width:{share:.2}%;background:var({colour})\"></b>"
        );
    }
    html.push_str("</div><p class=\"keys\">");
    for ((name, colour), bytes) in BANDS.iter().zip(bytes) {
        let text = format!("{name}: {} ({})", Bytes(bytes), percent(bytes, total));
        key(html, "", colour, &text);
    }
    let _ = write!(
        html,
        "</p><p class=\"soft\">It took {} on the wire. Besides {} came in vain, {} were uploaded, and the guest wrote {}. At the end {} of the \
         image were here, zeros counted.</p>",
        Bytes(stats.fetched_wire_bytes),
        Bytes(stats.wasted_bytes),
        Bytes(stats.uploaded_bytes),
        Bytes(stats.guest_written_bytes),
        percent(stats.present_bytes, stats.image_bytes)
    );
}

fn floor_text(data: &Data) -> String {
    let had = data.stalled();
    let what = "The floor is the largest lag of the line behind what the guest needs: max over t of (bytes needed by t \
                − rate × t) / rate, t being guest time, which stands still while a read waits.";
    let verdict = match data.floor() {
        None => String::new(),
        Some(floor) if had.abs_diff(floor) <= floor / 20 => format!(
            "The guest waited {}, and the floor of this line is {}: no profile could do better.",
            seconds(had),
            seconds(floor)
        ),
        Some(floor) if had >= floor => format!(
            "The guest waited {}; with a profile that knew every read, this line would have made it wait {}: {} could \
             be gained.",
            seconds(had),
            seconds(floor),
            seconds(had - floor)
        ),
        Some(floor) => format!(
            "The guest waited {}, which is less than the floor of {}: part of the data came before the guest ran, or \
             faster than the rate that is assumed here.",
            seconds(had),
            seconds(floor)
        ),
    };
    format!("<p>{verdict}</p><p class=\"soft\">{what}</p>")
}

#[cfg(test)]
mod tests {
    use super::super::samples::{boot, empty, hostile, small};
    use super::*;

    /// Keeps a page for somebody to look at, if a directory is named.
    fn keep(name: &str, html: &str) {
        if let Some(directory) = std::env::var_os("VMTORRENT_LOOK_DIR") {
            let path = std::path::Path::new(&directory).join(name);
            crate::whole_file::write(&path, html.as_bytes()).unwrap();
        }
    }

    #[test]
    fn the_page_of_a_boot_tells_all_and_asks_for_nothing_elsewhere() {
        let data = boot();
        let html = page(&data);
        keep("report-boot.html", &html);
        for part in [
            "demo.img",
            "Time line",
            "The first two seconds",
            "The image",
            "100 Mbit/s",
            &seconds(data.floor().unwrap()),
            &seconds(data.stalled()),
            "profile: ",
        ] {
            assert!(html.contains(part), "no {part}");
        }
        for outside in [
            "http:", "https:", "//", "src=", "href=", "url(", "@import", "<script", "<link",
        ] {
            assert!(!html.contains(outside), "{outside}");
        }
        assert!(!html.contains("NaN") && !html.contains("inf%"));
        assert!(html.len() < 1_000_000, "{} bytes", html.len());
    }

    #[test]
    fn a_run_without_any_read_and_one_of_few_blocks_have_a_page() {
        let html = page(&empty());
        keep("report-empty.html", &html);
        for part in ["not known", "report-rate", "nothing was read"] {
            assert!(html.contains(part), "no {part}");
        }
        assert!(!html.contains("NaN"));
        let html = page(&small());
        keep("report-small.html", &html);
        assert!(!html.contains("NaN") && html.contains("here before the launch"));
    }

    #[test]
    fn names_from_outside_are_no_markup() {
        let html = page(&hostile());
        keep("report-hostile.html", &html);
        assert!(!html.contains("<script"), "a name became an element");
        assert!(html.contains("&lt;script&gt;&amp;&quot;&#39;"));
    }
}
