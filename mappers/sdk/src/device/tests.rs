//! Each edge of a device's life, with a protocol that exists only here.

use super::*;
use edgebus_bus::payload::{Object, Wanted};
use serde_json::json;

struct Plain;

impl Protocol for Plain {
    const NAME: &'static str = "plain";
    type Dev = String;
    type Point = String;
    type Line = ();
    fn device(&self, _: &DeviceId, config: &Object) -> Result<String, String> {
        Ok(config
            .get("host")
            .and_then(Value::as_str)
            .unwrap_or("h")
            .to_owned())
    }
    fn point(&self, _: &String, p: &PropertyConfig, visitor: &Object) -> Result<String, String> {
        match visitor.get("bad") {
            Some(why) => Err(format!("{why} is no address")),
            None => Ok(p.name.clone()),
        }
    }
    fn line(&self, dev: &String) -> String {
        dev.clone()
    }
    fn readable(&self, point: &String) -> bool {
        !point.starts_with("blind")
    }
    async fn open(&self, _: &String) -> Result<(), LineError> {
        Ok(())
    }
    async fn read(
        &self,
        (): &mut (),
        _: &String,
        _: &[&String],
    ) -> Result<Vec<Result<Value, PointError>>, LineError> {
        Ok(vec![])
    }
    async fn write(
        &self,
        (): &mut (),
        _: &String,
        _: &String,
        _: &Value,
    ) -> Result<Result<(), PointError>, LineError> {
        Ok(Ok(()))
    }
}

fn device(props: Value, on_reconnect: &str) -> Device<Plain> {
    let config = serde_json::from_value(
        json!({"uid": "u1", "properties": props, "on_reconnect": on_reconnect}),
    )
    .unwrap();
    Device::new(&Plain, &DeviceId::new("d", "p").unwrap(), &config, 0).unwrap()
}

fn pump() -> Device<Plain> {
    device(
        json!([{"name": "speed", "type": "INT", "minimum": 0.0, "maximum": 100.0, "collect_ms": 1000}]),
        "hold",
    )
}

fn g(n: u64) -> Gen {
    Gen {
        store: "s".into(),
        n,
    }
}

fn want(prop: &str, value: Value, n: u64) -> Want {
    Want {
        r#gen: g(n),
        props: [(prop.to_owned(), Wanted { value, r#gen: g(n) })].into(),
    }
}

#[test]
fn a_value_is_reported_when_it_changes_and_its_phase_is_kept() {
    let mut d = pump();
    assert_eq!(d.due(0), Due::Read(vec![0]));
    let out = d.answered(&Plain, 30, "t0", &[0], vec![Ok(json!(7))]);
    assert_eq!(out.readings["speed"].value, json!(7));
    assert_eq!(out.state.unwrap().state, DeviceUp::Online);
    assert_eq!(d.due(30), Due::Wait(Some(1000)));
    let out = d.answered(&Plain, 1000, "t1", &[0], vec![Ok(json!(7))]);
    assert_eq!(out, Out::default());
    let out = d.answered(&Plain, 5500, "t2", &[0], vec![Ok(json!(8))]);
    assert_eq!(out.readings["speed"].at, "t2");
    assert_eq!(d.due(5500), Due::Wait(Some(6000)));
}

#[test]
fn a_dead_band_and_a_report_cycle_decide_what_is_news() {
    let mut d = device(
        json!([{"name": "t", "type": "FLOAT", "collect_ms": 10, "deadband": 0.5, "report_ms": 100}]),
        "hold",
    );
    let mut say = |now, v: f64| {
        d.answered(&Plain, now, "t", &[0], vec![Ok(json!(v))])
            .readings
            .len()
    };
    assert_eq!(
        [
            say(0, 20.0),
            say(10, 20.4),
            say(20, 20.6),
            say(30, 20.6),
            say(130, 20.6)
        ],
        [1, 0, 1, 0, 1]
    );
}

#[test]
fn a_new_generation_is_written_once_and_proved() {
    let mut d = pump();
    d.want(&Plain, &want("speed", json!("42"), 1), true, "t");
    assert_eq!(d.due(0), Due::Write(0, Step::Write));
    assert_eq!(d.wanted(0), Some(&json!(42)));
    d.begin(0);
    d.stepped(&Plain, 1, "t", 0, Step::Write, Ok(Value::Null));
    assert_eq!(d.due(1), Due::Write(0, Step::ReadBack));
    let out = d.stepped(&Plain, 2, "t", 0, Step::ReadBack, Ok(json!(42)));
    let reading = &out.readings["speed"];
    assert_eq!(
        (reading.outcome, reading.gen_seen.clone()),
        (Some(Outcome::Applied), Some(g(1)))
    );
    assert!(out.finished);
    assert_eq!(d.gen_seen(), Some(g(1)));
    // The same generation again, however it comes, is not written again.
    d.want(&Plain, &want("speed", json!("42"), 1), true, "t");
    assert!(matches!(d.due(2), Due::Wait(_)));
    // Nor is the device's own change ever fought.
    d.answered(&Plain, 1000, "t", &[0], vec![Ok(json!(3))]);
    assert!(matches!(d.due(1001), Due::Wait(_)));
}

#[test]
fn what_the_device_does_not_take_is_said() {
    let mut d = pump();
    d.want(&Plain, &want("speed", json!(42), 1), true, "t");
    d.stepped(&Plain, 1, "t", 0, Step::Write, Ok(Value::Null));
    let out = d.stepped(&Plain, 2, "t", 0, Step::ReadBack, Ok(json!(40)));
    assert_eq!(out.readings["speed"].outcome, Some(Outcome::NotEffective));
    d.want(&Plain, &want("speed", json!(43), 2), true, "t");
    let out = d.stepped(
        &Plain,
        3,
        "t",
        0,
        Step::Write,
        Err(PointError::new("deviceFailure", "exception 2")),
    );
    let reading = &out.readings["speed"];
    assert_eq!(
        (reading.outcome, reading.value.clone()),
        (Some(Outcome::Refused), json!(40))
    );
    assert_eq!(reading.why.as_deref(), Some("exception 2"));
}

#[test]
fn wrong_values_are_refused_before_they_reach_the_line() {
    let mut d = device(
        json!([{"name": "speed", "type": "INT", "maximum": 100.0}, {"name": "ro", "type": "INT", "access": "ReadOnly"}]),
        "hold",
    );
    for (prop, value) in [
        ("speed", json!(101)),
        ("speed", json!("fast")),
        ("ro", json!(1)),
    ] {
        let out = d.want(&Plain, &want(prop, value, 9), true, "t");
        assert_eq!(out.readings[prop].outcome, Some(Outcome::Refused), "{prop}");
        assert_eq!(d.due(0), Due::Wait(None));
        d = device(
            json!([{"name": "speed", "type": "INT", "maximum": 100.0}, {"name": "ro", "type": "INT", "access": "ReadOnly"}]),
            "hold",
        );
    }
}

#[test]
fn after_a_crash_a_point_is_read_first_and_written_only_if_it_differs() {
    let mut d = pump();
    d.want(&Plain, &want("speed", json!(42), 1), false, "t");
    assert_eq!(d.due(0), Due::Write(0, Step::ReadFirst));
    let out = d.stepped(&Plain, 1, "t", 0, Step::ReadFirst, Ok(json!(42)));
    assert_eq!(out.readings["speed"].outcome, Some(Outcome::Unchanged));
    let mut d = pump();
    d.want(&Plain, &want("speed", json!(42), 1), false, "t");
    d.stepped(&Plain, 1, "t", 0, Step::ReadFirst, Ok(json!(7)));
    assert_eq!(d.due(1), Due::Write(0, Step::Write));
}

#[test]
fn a_marked_generation_is_not_touched_after_a_restart() {
    let mut d = pump();
    d.want(&Plain, &want("speed", json!(42), 1), true, "t");
    d.stepped(&Plain, 1, "t", 0, Step::Write, Ok(Value::Null));
    d.stepped(&Plain, 2, "t", 0, Step::ReadBack, Ok(json!(42)));
    let mark = d.mark(&Plain);
    let mut again = pump();
    again.remember(&mark);
    again.want(&Plain, &want("speed", json!(42), 1), false, "t");
    assert_eq!(again.due(0), Due::Read(vec![0]));
}

#[test]
fn what_cannot_be_read_back_is_marked_first_and_never_repeated() {
    let blind = || device(json!([{"name": "blind", "type": "INT"}]), "hold");
    let mut d = blind();
    d.want(&Plain, &want("blind", json!(1), 1), true, "t");
    assert_eq!(d.due(0), Due::Write(0, Step::Mark));
    d.begin(0);
    let mark = d.mark(&Plain);
    d.stepped(&Plain, 1, "t", 0, Step::Mark, Ok(Value::Null));
    assert_eq!(d.due(1), Due::Write(0, Step::Write));
    // The process ends here.
    let mut again = blind();
    again.remember(&mark);
    let out = again.want(&Plain, &want("blind", json!(1), 1), false, "t");
    assert_eq!(out.readings["blind"].outcome, Some(Outcome::Unknown));
    assert_eq!(again.due(0), Due::Wait(None));
    // The line fails instead.
    let out = d.failed(&Plain, 2, "t", &LineError::Silent("no answer".into()));
    assert_eq!(out.readings["blind"].outcome, Some(Outcome::Unknown));
    assert_eq!(d.due(u64::MAX), Due::Wait(None));
}

#[test]
fn a_write_whose_answer_never_came_is_checked_before_it_is_repeated() {
    let mut d = pump();
    d.want(&Plain, &want("speed", json!(42), 1), true, "t");
    d.begin(0);
    d.failed(&Plain, 10, "t", &LineError::Silent("no answer".into()));
    assert_eq!(d.due(10), Due::Wait(Some(1010)));
    assert_eq!(d.due(1010), Due::Write(0, Step::ReadFirst));
    let out = d.stepped(&Plain, 1011, "t", 0, Step::ReadFirst, Ok(json!(42)));
    assert_eq!(out.readings["speed"].outcome, Some(Outcome::Applied));
}

#[test]
fn a_silent_device_is_said_bad_once_and_asked_less_and_less() {
    let mut d = pump();
    d.answered(&Plain, 0, "t", &[0], vec![Ok(json!(7))]);
    let e = LineError::Silent("no answer within 1000 ms".into());
    let out = d.failed(&Plain, 1000, "t", &e);
    assert_eq!(out.readings["speed"].quality, Quality::Bad);
    assert_eq!(out.readings["speed"].value, Value::Null);
    assert_eq!(out.state.unwrap().state, DeviceUp::Offline);
    let mut now = 1000;
    let mut pauses = vec![];
    for _ in 0..7 {
        let Due::Wait(Some(t)) = d.due(now) else {
            panic!("asked too early")
        };
        pauses.push((t - now) / 1000);
        now = t;
        assert_eq!(d.failed(&Plain, now, "t", &e), Out::default());
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
    let out = d.answered(&Plain, now, "t", &[0], vec![Ok(json!(7))]);
    assert_eq!(
        (out.state.unwrap().state, out.readings.len()),
        (DeviceUp::Online, 1)
    );
}

#[test]
fn reapply_writes_again_after_the_device_was_away() {
    let mut d = device(
        json!([{"name": "speed", "type": "INT", "collect_ms": 1000}]),
        "reapply",
    );
    d.want(&Plain, &want("speed", json!(42), 1), true, "t");
    d.stepped(&Plain, 1, "t", 0, Step::Write, Ok(Value::Null));
    d.stepped(&Plain, 2, "t", 0, Step::ReadBack, Ok(json!(42)));
    d.failed(&Plain, 10, "t", &LineError::Lost("gone".into()));
    d.answered(&Plain, 2000, "t", &[0], vec![Ok(json!(0))]);
    assert_eq!(d.due(2000), Due::Write(0, Step::ReadFirst));
}

#[test]
fn a_property_without_an_address_is_said_and_its_neighbours_work() {
    let mut d = device(
        json!([{"name": "a", "type": "INT", "collect_ms": 10, "visitor": {"Bad": 1}}, {"name": "b", "type": "INT", "collect_ms": 10}]),
        "hold",
    );
    let out = d.complaints(0, "t");
    assert_eq!(out.readings["a"].cause.as_deref(), Some("configuration"));
    assert_eq!(d.due(0), Due::Read(vec![1]));
}

#[test]
fn out_of_range_readings_are_uncertain_and_one_bad_point_leaves_the_rest_good() {
    let mut d = device(
        json!([{"name": "a", "type": "INT", "maximum": 10.0, "collect_ms": 10}, {"name": "b", "type": "INT", "collect_ms": 10}]),
        "hold",
    );
    let out = d.answered(
        &Plain,
        0,
        "t",
        &[0, 1],
        vec![
            Ok(json!(11)),
            Err(PointError::new("deviceFailure", "exception 2")),
        ],
    );
    assert_eq!(out.readings["a"].quality, Quality::Uncertain);
    assert_eq!(out.readings["b"].quality, Quality::Bad);
    assert_eq!(out.state.unwrap().state, DeviceUp::Online);
}

#[test]
fn a_changed_configuration_keeps_what_is_known_of_the_same_device() {
    let mut d = pump();
    d.answered(&Plain, 0, "t", &[0], vec![Ok(json!(7))]);
    d.want(&Plain, &want("speed", json!(42), 1), true, "t");
    d.stepped(&Plain, 1, "t", 0, Step::Write, Ok(Value::Null));
    d.stepped(&Plain, 2, "t", 0, Step::ReadBack, Ok(json!(42)));
    let mut new = pump();
    new.inherit(d, &Plain);
    new.want(&Plain, &want("speed", json!(42), 1), true, "t");
    assert_eq!(new.due(2), Due::Read(vec![0]));
    assert_eq!(
        new.answered(&Plain, 3, "t", &[0], vec![Ok(json!(42))]),
        Out::default()
    );
}
