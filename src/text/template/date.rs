//! The date for templates that name it: Python's `strftime`, in UTC, from a number.

/// Writes the moment `seconds` after 1970 in `format`. Unknown directives stay as they are.
pub(super) fn strftime(seconds: i64, format: &str) -> String {
    let moment = Moment::new(seconds);
    let mut out = String::new();
    let mut characters = format.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            out.push(character);
            continue;
        }
        let mut directive = characters.next();
        let padded = directive != Some('-');
        if !padded {
            directive = characters.next();
        }
        match directive {
            Some(directive) => match moment.field(directive, padded) {
                Some(text) => out.push_str(&text),
                None => out.extend(['%', directive]),
            },
            None => out.push('%'),
        }
    }
    out
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = [
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
];

struct Moment {
    year: i64,
    /// From 1.
    month: i64,
    day: i64,
    day_of_year: i64,
    /// From Thursday, the first of January 1970.
    weekday: usize,
    second_of_day: i64,
}

impl Moment {
    /// Howard Hinnant's `civil_from_days`.
    fn new(seconds: i64) -> Self {
        let days = seconds.div_euclid(86_400);
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let of_era = shifted.rem_euclid(146_097);
        let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let from_march = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * from_march + 2) / 153;
        let day = from_march - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 {
            shifted_month + 3
        } else {
            shifted_month - 9
        };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        let leap = i64::from(year % 4 == 0 && (year % 100 != 0 || year % 400 == 0));
        let day_of_year = if month > 2 {
            from_march + 60 + leap
        } else {
            from_march - 305
        };
        Self {
            year,
            month,
            day,
            day_of_year,
            weekday: usize::try_from(days.rem_euclid(7)).unwrap_or(0),
            second_of_day: seconds.rem_euclid(86_400),
        }
    }

    fn field(&self, directive: char, padded: bool) -> Option<String> {
        let number = |value: i64, width: usize| {
            if padded {
                format!("{value:0width$}")
            } else {
                value.to_string()
            }
        };
        let hour = self.second_of_day / 3600;
        let month = usize::try_from(self.month - 1).unwrap_or(0) % 12;
        Some(match directive {
            'Y' => number(self.year, 4),
            'y' => number(self.year.rem_euclid(100), 2),
            'm' => number(self.month, 2),
            'd' => number(self.day, 2),
            'e' => format!("{:2}", self.day),
            'j' => number(self.day_of_year, 3),
            'H' => number(hour, 2),
            'I' => number((hour + 11) % 12 + 1, 2),
            'M' => number(self.second_of_day / 60 % 60, 2),
            'S' => number(self.second_of_day % 60, 2),
            'p' => if hour < 12 { "AM" } else { "PM" }.to_owned(),
            'B' => MONTHS[month].to_owned(),
            'b' | 'h' => MONTHS[month][..3].to_owned(),
            'A' => DAYS[self.weekday].to_owned(),
            'a' => DAYS[self.weekday][..3].to_owned(),
            'F' => format!("{:04}-{:02}-{:02}", self.year, self.month, self.day),
            'Z' => "UTC".to_owned(),
            'z' => "+0000".to_owned(),
            '%' => "%".to_owned(),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::strftime;

    #[test]
    fn dates_are_those_of_python() {
        // datetime.fromtimestamp(s, timezone.utc).strftime(…)
        for (seconds, format, expected) in [
            (
                0,
                "%Y-%m-%d %H:%M:%S %A %j",
                "1970-01-01 00:00:00 Thursday 001",
            ),
            (951_782_399, "%d %b %Y", "28 Feb 2000"),
            (951_782_400, "%d %b %Y, day %j", "29 Feb 2000, day 060"),
            (1_735_689_599, "%F %I %p %j", "2024-12-31 11 PM 366"),
            (1_763_904_142, "%-d %B %y %a", "23 November 25 Sun"),
            (-1, "%F %H:%M", "1969-12-31 23:59"),
            (0, "100%% %Q %", "100% %Q %"),
        ] {
            assert_eq!(strftime(seconds, format), expected);
        }
    }
}
