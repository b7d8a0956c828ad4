//! Invariant: every colour has a name, and a value for light and for dark; what is told by colour alone differs in
//! lightness too, so that colour-blind people and grey printers tell it apart.

/// Colours as CSS variables of the outermost element, for light and for dark.
///
/// The bands' hues follow M. Okabe, K. Ito: *Color Universal Design* (2008); those of `r1` to `r6` follow the map
/// "plasma" (N. Smith, S. van der Walt: *A Better Default Colormap for Matplotlib*, 2015), whose lightness only grows.
pub(crate) const COLOURS: &str = "\
:root{color-scheme:light dark;--page:#fff;--card:#f6f7f9;--text:#16191d;--soft:#50575f;--line:#d9dde2;--axis:#868e96;\
--demand:#c44e00;--ahead:#e5a50a;--profile:#1668b8;--background:#8a9199;--stall:#c44e00;--run:#1668b8;--start:#8a9199;\
--hit:#1155a3;--wait:#e2551a;--before:#22b08a;--spare:#e5a50a;--unread:#e4e7eb;--zero:#f3f4f6;\
--needed:#c44e00;--fetched:#1668b8;--rate:#16191d;\
--r1:#f0882f;--r2:#dc5d68;--r3:#b93289;--r4:#8a0ba5;--r5:#5302a3;--r6:#0d0887}\
@media(prefers-color-scheme:dark){:root{--page:#12151a;--card:#1b2027;--text:#e9ecef;--soft:#a7b0ba;--line:#2e353e;\
--axis:#76808b;--demand:#ff8a4c;--ahead:#f2cc4d;--profile:#5aa9f0;--background:#7d8791;--stall:#ff8a4c;--run:#5aa9f0;\
--start:#7d8791;--hit:#4a8fe0;--wait:#ff9d66;--before:#9be8cf;--spare:#f2cc4d;--unread:#303842;--zero:#1b2027;\
--needed:#ff8a4c;--fetched:#5aa9f0;--rate:#e9ecef;\
--r1:#9a3fb5;--r2:#c04a93;--r3:#e06a70;--r4:#f58f4b;--r5:#fdbe38;--r6:#f3f06a}}";

/// Which of at most six colours stands for how many runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Runs {
    total: u32,
}

impl Runs {
    /// Of a profile of so many runs.
    pub(crate) fn of(total: u32) -> Self {
        Self {
            total: total.max(1),
        }
    }

    /// How many classes there are.
    pub(crate) fn classes(self) -> u8 {
        self.total.min(6) as u8
    }

    /// The class of a block that so many runs read, from 1: the more runs, the higher.
    pub(crate) fn class(self, runs: u32) -> u8 {
        let classes = u64::from(self.classes());
        let class = (u64::from(runs) * classes).div_ceil(u64::from(self.total));
        class.clamp(1, classes) as u8
    }

    /// The colour of a class, the name of a CSS variable: the highest class always has the same.
    pub(crate) fn colour(self, class: u8) -> String {
        let classes = self.classes();
        let place = match classes {
            1 => 6,
            _ => 1 + (class.max(1) - 1).min(classes - 1) * 5 / (classes - 1),
        };
        format!("--r{place}")
    }

    /// What a class is called: "1 run", "2 runs", "3–4 runs".
    pub(crate) fn name(self, class: u8) -> String {
        let (total, classes) = (u64::from(self.total), u64::from(self.classes()));
        let last = |class: u64| class * total / classes;
        let (from, to) = (
            last(u64::from(class.max(1)) - 1) + 1,
            last(u64::from(class)),
        );
        match (from, to) {
            (1, 1) => "1 run".to_owned(),
            (from, to) if from == to => format!("{to} runs"),
            (from, to) => format!("{from}–{to} runs"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_of_runs_has_the_class_whose_name_holds_it() {
        let names = |total| {
            let runs = Runs::of(total);
            (1..=runs.classes())
                .map(|c| runs.name(c))
                .collect::<Vec<_>>()
        };
        assert_eq!(names(0), ["1 run"]);
        assert_eq!(names(3), ["1 run", "2 runs", "3 runs"]);
        assert_eq!(
            names(10),
            [
                "1 run",
                "2–3 runs",
                "4–5 runs",
                "6 runs",
                "7–8 runs",
                "9–10 runs"
            ]
        );
        for total in (1..40).chain([1000, u32::MAX]) {
            let of = Runs::of(total);
            for runs in (1..=total.min(50)).chain([total]) {
                let name = of.name(of.class(runs));
                let ends: Vec<u32> = name
                    .trim_end_matches(" runs")
                    .trim_end_matches(" run")
                    .split('–')
                    .map(|n| n.parse().unwrap())
                    .collect();
                assert!(
                    ends[0] <= runs && runs <= *ends.last().unwrap(),
                    "{runs} of {total}: {name}"
                );
            }
            assert_eq!(of.colour(of.classes()), "--r6");
        }
        assert_eq!(Runs::of(3).colour(1), "--r1");
    }

    #[test]
    fn every_colour_is_there_for_light_and_for_dark() {
        let (light, dark) = COLOURS.split_once("@media").unwrap();
        let names = |css: &str| -> Vec<String> {
            let values = css.split(['{', ';', '}']);
            values
                .filter_map(|v| v.trim().split_once(':'))
                .filter(|(name, value)| name.starts_with("--") && value.starts_with('#'))
                .map(|(name, _)| name.to_owned())
                .collect()
        };
        assert_eq!(names(light), names(dark));
        assert!(names(light).len() > 20);
    }
}
