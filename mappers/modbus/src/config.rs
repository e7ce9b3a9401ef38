//! KubeEdge's Modbus `configData`, and what we add to it. Keys come in lower case already; numbers
//! and booleans may be strings. Every refusal names the key, the value and what is allowed.
//!
//! Device: `ip`, `port`, `slaveID`, or `serialPort`, `baudRate`, `dataBits`, `parity`, `stopBits`,
//! flat or inside `tcp`/`com`, `communicateMode` TCP or RTU. Ours: `timeout` (ms), `retries`,
//! `maxRegisters`, `maxGap`, `minRequestGap` (ms), `addressBase`.
//! Property: `register`, `offset`, `limit`, `scale`, `isSwap`, `isRegisterSwap`, `dataType`. Ours:
//! `scaleOffset`, `bit`, `byteOrder`.

use edgebus_bus::payload::{Object, PropertyConfig, ValueType};
use serde_json::{Value, json};

/// How a device is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Link {
    /// Modbus TCP.
    Tcp {
        /// Host name or address.
        host: String,
        /// 502 by default.
        port: u16,
    },
    /// Modbus RTU.
    Rtu {
        /// Device file of the port.
        path: String,
        /// Bits per second.
        baud: u32,
        /// 7 or 8.
        data_bits: u8,
        /// `none`, `even` or `odd`.
        parity: Parity,
        /// 1 or 2.
        stop_bits: u8,
    },
}

/// Parity of a serial line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parity {
    /// None.
    None,
    /// Even: what the serial line specification asks for (§2.5.1).
    Even,
    /// Odd.
    Odd,
}

impl Link {
    /// Devices with equal keys share it.
    pub fn key(&self) -> String {
        match self {
            Link::Tcp { host, port } => format!("tcp:{host}:{port}"),
            Link::Rtu { path, .. } => format!("rtu:{path}"),
        }
    }

    /// What all its devices must agree on.
    pub fn settings(&self) -> String {
        match self {
            Link::Tcp { .. } => String::new(),
            Link::Rtu {
                baud,
                data_bits,
                parity,
                stop_bits,
                ..
            } => format!("{baud} {data_bits}{parity:?}{stop_bits}"),
        }
    }
}

/// One device (slave) on a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dev {
    /// The link.
    pub link: Link,
    /// Unit id, 0 to 255.
    pub slave: u8,
    /// How long to wait for an answer.
    pub timeout_ms: u64,
    /// How often a question is repeated before the device counts as silent.
    pub retries: u32,
    /// Most registers in one question; the specification allows 125.
    pub max_registers: u16,
    /// Unneeded registers that are read along to save a question.
    pub max_gap: u16,
    /// Pause between two questions.
    pub min_gap_ms: u64,
    /// What the device's manual calls the first register: 0 or 1.
    pub base: u16,
}

/// One of Modbus's four tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Coils: one bit, read and write.
    Coil,
    /// Discrete inputs: one bit, read only.
    Discrete,
    /// Input registers: 16 bits, read only.
    Input,
    /// Holding registers: 16 bits, read and write.
    Holding,
}

impl Table {
    /// Are its cells single bits?
    pub fn bits(self) -> bool {
        matches!(self, Table::Coil | Table::Discrete)
    }
    /// Can it be written?
    pub fn writable(self) -> bool {
        matches!(self, Table::Coil | Table::Holding)
    }
}

/// What registers mean together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One bit.
    Bool,
    /// Signed or unsigned whole number of 16, 32 or 64 bits.
    Int {
        /// Two's complement.
        signed: bool,
    },
    /// IEEE 754 of 32 or 64 bits.
    Float,
    /// Characters, two a register, ended by NUL.
    Text,
    /// Anything, as base64.
    Bytes,
}

/// One property's place in the device.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// Which table.
    pub table: Table,
    /// First cell, from 0.
    pub address: u16,
    /// Cells.
    pub count: u16,
    /// Their meaning.
    pub form: Form,
    /// The property's type.
    pub kind: ValueType,
    /// Value = raw × scale + shift.
    pub scale: f64,
    /// See `scale`.
    pub shift: f64,
    /// Swap the two bytes of each register.
    pub swap_bytes: bool,
    /// Lowest register first.
    pub swap_words: bool,
    /// One bit of a register.
    pub bit: Option<u8>,
}

struct Keys<'a> {
    what: &'a str,
    objects: Vec<&'a Object>,
}

impl Keys<'_> {
    fn get(&self, keys: &[&str]) -> Option<(&'static str, &Value)> {
        // The name is only for messages: one leaked copy per spelling would be worse than a match.
        for key in keys {
            for object in &self.objects {
                if let Some(v) = object.get(*key).filter(|v| !v.is_null()) {
                    return Some((known(key), v));
                }
            }
        }
        None
    }

    fn refuse(&self, key: &str, value: &Value, allowed: &str) -> String {
        let shown: String = value.to_string().chars().take(80).collect();
        format!("{}: {key} = {shown} is not valid: {allowed}", self.what)
    }

    fn whole(&self, keys: &[&str], low: i64, high: i64) -> Result<Option<i64>, String> {
        let Some((key, value)) = self.get(keys) else {
            return Ok(None);
        };
        let n = match value {
            Value::String(s) => s.trim().parse::<i64>().ok(),
            Value::Number(n) => n.as_i64().or_else(|| {
                n.as_f64()
                    .filter(|f| f.fract() == 0.0 && f.abs() < 1e15)
                    .map(|f| f as i64)
            }),
            _ => None,
        };
        match n {
            Some(n) if (low..=high).contains(&n) => Ok(Some(n)),
            _ => Err(self.refuse(key, value, &format!("a whole number from {low} to {high}"))),
        }
    }

    fn number(&self, keys: &[&str]) -> Result<Option<f64>, String> {
        let Some((key, value)) = self.get(keys) else {
            return Ok(None);
        };
        let n = match value {
            Value::String(s) => s.trim().parse::<f64>().ok(),
            other => other.as_f64(),
        };
        match n {
            Some(n) if n.is_finite() => Ok(Some(n)),
            _ => Err(self.refuse(key, value, "a finite number")),
        }
    }

    fn flag(&self, keys: &[&str]) -> Result<bool, String> {
        let Some((key, value)) = self.get(keys) else {
            return Ok(false);
        };
        match value {
            Value::Bool(b) => Ok(*b),
            Value::String(s) if s.eq_ignore_ascii_case("true") || s == "1" => Ok(true),
            Value::String(s) if s.eq_ignore_ascii_case("false") || s == "0" || s.is_empty() => {
                Ok(false)
            }
            _ => Err(self.refuse(key, value, "true or false")),
        }
    }

    fn text(&self, keys: &[&str]) -> Result<Option<String>, String> {
        match self.get(keys) {
            None => Ok(None),
            Some((_, Value::String(s))) => Ok(Some(s.trim().to_owned())),
            Some((_, Value::Number(n))) => Ok(Some(n.to_string())),
            Some((key, value)) => Err(self.refuse(key, value, "text")),
        }
    }
}

/// Keys as the manifests spell them.
fn known(lower: &str) -> &'static str {
    const SPELLED: &[&str] = &[
        "communicateMode",
        "ip",
        "port",
        "slaveID",
        "serialPort",
        "baudRate",
        "dataBits",
        "parity",
        "stopBits",
        "timeout",
        "retries",
        "maxRegisters",
        "maxGap",
        "minRequestGap",
        "addressBase",
        "register",
        "offset",
        "limit",
        "scale",
        "isSwap",
        "isRegisterSwap",
        "dataType",
        "scaleOffset",
        "bit",
        "byteOrder",
    ];
    SPELLED
        .iter()
        .find(|s| s.eq_ignore_ascii_case(lower))
        .copied()
        .unwrap_or("a key")
}

impl Dev {
    /// Reads a device's configuration.
    pub fn read(config: &Object) -> Result<Self, String> {
        let mut objects = vec![config];
        for nested in ["tcp", "com", "rtu", "customizedvalues", "configdata"] {
            objects.extend(config.get(nested).and_then(Value::as_object));
        }
        let keys = Keys {
            what: "spec.protocol.configData",
            objects,
        };
        let mode = keys
            .text(&["communicatemode", "mode"])?
            .map(|m| m.to_lowercase());
        let serial = keys.text(&["serialport"])?;
        let host = keys.text(&["ip", "host", "address"])?;
        let rtu = match mode.as_deref() {
            Some("rtu" | "serial" | "com") => true,
            Some("tcp") => false,
            Some(other) => {
                return Err(format!(
                    "{}: communicateMode = {other:?} is not valid: TCP or RTU",
                    keys.what
                ));
            }
            None => serial.is_some() && host.is_none(),
        };
        let link = if rtu {
            let parity = match keys.text(&["parity"])?.map(|p| p.to_lowercase()).as_deref() {
                None | Some("" | "none" | "n") => Parity::None,
                Some("even" | "e") => Parity::Even,
                Some("odd" | "o") => Parity::Odd,
                Some(other) => {
                    return Err(format!(
                        "{}: parity = {other:?} is not valid: none, even or odd",
                        keys.what
                    ));
                }
            };
            Link::Rtu {
                path: serial.ok_or_else(|| {
                    format!(
                        "{}: serialPort is required for RTU, for example /dev/ttyUSB0",
                        keys.what
                    )
                })?,
                baud: keys
                    .whole(&["baudrate"], 50, 4_000_000)?
                    .map_or(9600, |n| n as u32),
                data_bits: keys.whole(&["databits"], 7, 8)?.map_or(8, |n| n as u8),
                parity,
                stop_bits: keys.whole(&["stopbits"], 1, 2)?.map_or(1, |n| n as u8),
            }
        } else {
            Link::Tcp {
                host: host.ok_or_else(|| {
                    format!(
                        "{}: ip is required for TCP, or serialPort for RTU",
                        keys.what
                    )
                })?,
                port: keys.whole(&["port"], 1, 65_535)?.map_or(502, |n| n as u16),
            }
        };
        Ok(Self {
            link,
            slave: keys
                .whole(&["slaveid", "unitid"], 0, 255)?
                .map_or(1, |n| n as u8),
            timeout_ms: keys
                .whole(&["timeout"], 1, 60_000)?
                .map_or(1_000, |n| n as u64),
            retries: keys.whole(&["retries"], 0, 10)?.map_or(1, |n| n as u32),
            max_registers: keys
                .whole(&["maxregisters"], 1, 125)?
                .map_or(125, |n| n as u16),
            max_gap: keys.whole(&["maxgap"], 0, 124)?.map_or(0, |n| n as u16),
            min_gap_ms: keys
                .whole(&["minrequestgap"], 0, 60_000)?
                .map_or(0, |n| n as u64),
            base: keys.whole(&["addressbase"], 0, 1)?.map_or(0, |n| n as u16),
        })
    }
}

impl Point {
    /// Reads one property's configuration.
    pub fn read(dev: &Dev, property: &PropertyConfig, visitor: &Object) -> Result<Self, String> {
        let mut objects = vec![visitor];
        objects.extend(visitor.get("configdata").and_then(Value::as_object));
        let what = format!("property {:?}, visitors.configData", property.name);
        let keys = Keys {
            what: &what,
            objects,
        };
        let table = match keys
            .text(&["register"])?
            .map(|r| r.to_lowercase())
            .as_deref()
        {
            Some("coilregister" | "coil") => Table::Coil,
            Some("discreteinputregister" | "discreteinput") => Table::Discrete,
            Some("inputregister" | "input") => Table::Input,
            Some("holdingregister" | "holding") => Table::Holding,
            other => {
                let shown = other.map_or("missing".to_owned(), |o| format!("{o:?}"));
                return Err(format!(
                    "{what}: register is {shown}: CoilRegister, DiscreteInputRegister, InputRegister or HoldingRegister"
                ));
            }
        };
        let offset = keys
            .whole(&["offset"], 0, 65_535)?
            .ok_or_else(|| format!("{what}: offset is required: 0 to 65535"))?;
        let address = u16::try_from(offset - i64::from(dev.base)).map_err(|_| {
            format!(
                "{what}: offset = {offset} lies before addressBase = {}",
                dev.base
            )
        })?;
        let bit = keys.whole(&["bit"], 0, 15)?.map(|n| n as u8);
        let limit = keys.whole(&["limit"], 1, 125)?.map(|n| n as u16);
        let named = keys.text(&["datatype"])?.map(|t| t.to_lowercase());
        let (form, natural) = form(&what, table, property, named.as_deref(), limit, bit)?;
        let count = match limit {
            Some(limit) if table.bits() && limit != 1 => {
                return Err(format!(
                    "{what}: limit = {limit} is not valid: one property is 1 coil or discrete input"
                ));
            }
            Some(limit) if natural.is_some_and(|n| n != limit) && named.is_some() => {
                return Err(format!(
                    "{what}: limit = {limit} does not fit dataType {:?}, which takes {} register(s)",
                    named.unwrap_or_default(),
                    natural.unwrap_or(1)
                ));
            }
            Some(limit) => limit,
            None => natural.unwrap_or(1),
        };
        if matches!(form, Form::Int { .. } | Form::Float) && ![1, 2, 4].contains(&count) {
            return Err(format!(
                "{what}: limit = {count} is not valid for a number: 1, 2 or 4 registers"
            ));
        }
        if form == Form::Float && count == 1 {
            return Err(format!("{what}: a float takes 2 or 4 registers, limit = 1"));
        }
        if u32::from(address) + u32::from(count) > 65_536 {
            return Err(format!(
                "{what}: offset = {offset} with limit = {count} ends behind the last register, 65535"
            ));
        }
        let (swap_bytes, swap_words) = match keys
            .text(&["byteorder"])?
            .map(|o| o.to_uppercase())
            .as_deref()
        {
            None => (keys.flag(&["isswap"])?, keys.flag(&["isregisterswap"])?),
            Some("ABCD") => (false, false),
            Some("BADC") => (true, false),
            Some("CDAB") => (false, true),
            Some("DCBA") => (true, true),
            Some(other) => {
                return Err(format!(
                    "{what}: byteOrder = {other:?} is not valid: ABCD, BADC, CDAB or DCBA"
                ));
            }
        };
        let scale = keys.number(&["scale"])?.unwrap_or(1.0);
        if scale == 0.0 {
            return Err(format!(
                "{what}: scale = 0 is not valid: it could not be undone for a write"
            ));
        }
        Ok(Self {
            table,
            address,
            count,
            form,
            kind: property.kind,
            scale,
            shift: keys.number(&["scaleoffset"])?.unwrap_or(0.0),
            swap_bytes,
            swap_words,
            bit,
        })
    }
}

/// The meaning of the registers, and how many it takes where that is fixed.
fn form(
    what: &str,
    table: Table,
    property: &PropertyConfig,
    named: Option<&str>,
    limit: Option<u16>,
    bit: Option<u8>,
) -> Result<(Form, Option<u16>), String> {
    if table.bits() || bit.is_some() {
        return Ok((Form::Bool, Some(1)));
    }
    // A register whose model allows negative values is two's complement; otherwise KubeEdge's
    // mappers read it as unsigned, and so do we.
    let signed = property.minimum.is_some_and(|m| m < 0.0);
    Ok(match named {
        Some("int16" | "short") => (Form::Int { signed: true }, Some(1)),
        Some("uint16" | "word") => (Form::Int { signed: false }, Some(1)),
        Some("int32") => (Form::Int { signed: true }, Some(2)),
        Some("uint32" | "dword") => (Form::Int { signed: false }, Some(2)),
        Some("int64" | "long") => (Form::Int { signed: true }, Some(4)),
        Some("uint64") => (Form::Int { signed: false }, Some(4)),
        Some("float32") => (Form::Float, Some(2)),
        Some("float64" | "double") => (Form::Float, Some(4)),
        Some("bool" | "boolean") => (Form::Bool, Some(1)),
        Some("string") => (Form::Text, None),
        Some("bytes") => (Form::Bytes, None),
        Some("int") => (Form::Int { signed: true }, None),
        Some("uint") => (Form::Int { signed: false }, None),
        Some("float") => (
            if limit == Some(1) {
                Form::Int { signed }
            } else {
                Form::Float
            },
            Some(limit.unwrap_or(2)),
        ),
        Some(other) => {
            return Err(format!(
                "{what}: dataType = {other:?} is not valid: int16, uint16, int32, uint32, int64, uint64, float32, float64, bool, string or bytes"
            ));
        }
        None => match property.kind {
            ValueType::Int => (Form::Int { signed }, None),
            // One scaled register is how most sensors carry a fraction.
            ValueType::Float | ValueType::Double if limit.unwrap_or(1) == 1 => {
                (Form::Int { signed }, None)
            }
            ValueType::Float | ValueType::Double => (Form::Float, None),
            ValueType::Boolean => (Form::Bool, Some(1)),
            ValueType::String => (Form::Text, None),
            ValueType::Bytes => (Form::Bytes, None),
            ValueType::Stream => return Err(format!("{what}: a STREAM has no registers")),
        },
    })
}

/// JSON Schema of the device's configData.
pub fn dev_schema() -> Value {
    json!({"type": "object", "description": "keys in any case; numbers may be strings", "properties": {
        "communicateMode": {"enum": ["TCP", "RTU"]}, "ip": {"type": "string"}, "port": {"type": "integer", "default": 502},
        "slaveID": {"type": "integer", "minimum": 0, "maximum": 255, "default": 1}, "serialPort": {"type": "string"},
        "baudRate": {"type": "integer", "default": 9600}, "dataBits": {"enum": [7, 8]}, "parity": {"enum": ["none", "even", "odd"]},
        "stopBits": {"enum": [1, 2]}, "timeout": {"type": "integer", "description": "ms", "default": 1000},
        "retries": {"type": "integer", "default": 1}, "maxRegisters": {"type": "integer", "maximum": 125, "default": 125},
        "maxGap": {"type": "integer", "default": 0}, "minRequestGap": {"type": "integer", "description": "ms", "default": 0},
        "addressBase": {"enum": [0, 1], "default": 0}}})
}

/// JSON Schema of a property's configData.
pub fn point_schema() -> Value {
    json!({"type": "object", "required": ["register", "offset"], "properties": {
        "register": {"enum": ["CoilRegister", "DiscreteInputRegister", "InputRegister", "HoldingRegister"]},
        "offset": {"type": "integer", "minimum": 0, "maximum": 65535}, "limit": {"type": "integer", "minimum": 1, "maximum": 125},
        "dataType": {"enum": ["int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64", "bool", "string", "bytes"]},
        "scale": {"type": "number", "default": 1}, "scaleOffset": {"type": "number", "default": 0},
        "isSwap": {"type": "boolean"}, "isRegisterSwap": {"type": "boolean"},
        "byteOrder": {"enum": ["ABCD", "BADC", "CDAB", "DCBA"]}, "bit": {"type": "integer", "minimum": 0, "maximum": 15}}})
}

#[cfg(test)]
pub(crate) mod tests;
