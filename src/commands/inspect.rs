//! `casemate inspect`: prints what is known of images. A page for people as every other command's,
//! `--json` for programs, `--format` for one value.

use std::fmt::Write as _;

use serde_json::Value;

use super::registries;
use crate::cli::InspectArgs;
use crate::error::{Error, Exit, Result};
use crate::host::Directories;
use crate::store::{self, Details, Store, Wanted};
use crate::ui;

/// Tries each name; the exit code tells whether one failed.
pub(super) fn inspect(args: &InspectArgs, directories: &Directories) -> Result<i32> {
    let store = Store::find(directories.store()?)?;
    let mut found = Vec::new();
    let mut failed = false;
    for word in &args.images {
        match details(store.as_ref(), word, directories) {
            Ok(details) => found.push(details),
            Err(error) => {
                ui::error(&error);
                failed = true;
            }
        }
    }
    if args.json {
        ui::json(&found)?;
    } else if let Some(path) = &args.format {
        for details in &found {
            match value(details, path) {
                Ok(text) => ui::output(&text)?,
                Err(error) => {
                    ui::error(&error);
                    failed = true;
                }
            }
        }
    } else {
        let pages: Vec<String> = found.iter().map(page).collect();
        ui::output(&pages.join("\n"))?;
    }
    Ok(if failed { Exit::Failed.code() } else { 0 })
}

fn details(store: Option<&Store>, word: &str, directories: &Directories) -> Result<Details> {
    let wanted = Wanted::parse(word)?;
    let candidates = registries::candidates(wanted.reference(), directories);
    let wanted = wanted.with_candidates(&candidates);
    match store {
        Some(store) => store.inspect(&wanted),
        None => Err(store::missing(wanted.reference(), std::iter::empty())),
    }
}

/// One value, by JSON pointer (RFC 6901) or by its keys with dots between. Text is printed as it
/// is, anything else as JSON.
fn value(details: &Details, path: &str) -> Result<String> {
    let whole = serde_json::to_value(details)
        .map_err(|error| Error::new(format!("write JSON: {error}")))?;
    let mut value = &whole;
    let mut so_far = String::new();
    let keys: Vec<String> = match path.strip_prefix('/') {
        Some(pointer) => {
            pointer.split('/').map(|key| key.replace("~1", "/").replace("~0", "~")).collect()
        }
        None => path.trim_matches('.').split('.').map(str::to_owned).collect(),
    };
    let mut left = keys.iter().map(String::as_str).filter(|key| !key.is_empty());
    while let Some(key) = left.next() {
        let next = match value {
            // Labels have dots in their names: what is left may be one key.
            Value::Object(map) => map.get(key),
            Value::Array(list) => key.parse::<usize>().ok().and_then(|at| list.get(at)),
            _ => None,
        };
        let whole_rest = || {
            let rest = left.clone().fold(key.to_owned(), |rest, key| format!("{rest}.{key}"));
            value.as_object()?.get(&rest)
        };
        match next {
            Some(next) => value = next,
            None => {
                value = whole_rest().ok_or_else(|| no_value(details, value, key, &so_far))?;
                break;
            }
        }
        let _infallible = write!(so_far, "{}{key}", if so_far.is_empty() { "" } else { "." });
    }
    Ok(match value {
        Value::String(text) => format!("{}\n", ui::escape(text)),
        other => format!("{}\n", ui::escape(&other.to_string())),
    })
}

fn no_value(details: &Details, value: &Value, key: &str, so_far: &str) -> Error {
    let place = if so_far.is_empty() { "image" } else { so_far };
    let error = Error::new(format!("inspect {}: {place} has no {key}", details.name));
    match value {
        Value::Object(map) if !map.is_empty() => {
            let keys: Vec<_> = map.keys().map(String::as_str).collect();
            error.hint(format!("it has {}", keys.join(", ")))
        }
        Value::Array(list) if !list.is_empty() => {
            error.hint(format!("it has 0 to {}", list.len() - 1))
        }
        _ => error,
    }
}

fn page(details: &Details) -> String {
    let mut page = String::new();
    let mut line = |key: &str, text: &str| {
        if !text.is_empty() {
            // Writing to a String cannot fail.
            let _infallible = writeln!(page, "{key:<12}{}", ui::escape(text));
        }
    };
    let config = &details.config;
    line("image", &details.name);
    let others: Vec<_> = details.names.iter().filter(|name| **name != details.name).collect();
    for name in others {
        line("also", name);
    }
    line("digest", &details.digest.to_string());
    line("pulled", details.pulled_from.as_deref().unwrap_or_default());
    line("created", config.created.as_deref().unwrap_or_default());
    line("used", details.used.as_deref().unwrap_or_default());
    line("platform", &format!("{}/{}", config.os, config.architecture));
    let sizes = [details.size, details.unique_size, details.shared_size].map(ui::bytes);
    line("size", &format!("{}, {} unique, {} shared", sizes[0], sizes[1], sizes[2]));
    line("entrypoint", &words(&config.entrypoint));
    line("command", &words(&config.cmd));
    line("user", config.user.as_deref().unwrap_or_default());
    line("workdir", config.working_dir.as_deref().unwrap_or_default());
    line("stop signal", config.stop_signal.as_deref().unwrap_or_default());
    for variable in &config.env {
        line("env", variable);
    }
    for volume in &config.volumes {
        line("volume", volume);
    }
    for port in &details.exposed_ports {
        line("port", port);
    }
    for (name, value) in &details.labels {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        line("label", &format!("{name}={value}"));
    }
    for layer in &details.layers {
        let packed = ui::bytes(layer.packed_size);
        let mut text = format!("{}  {}, {packed} packed", layer.diff_id, ui::bytes(layer.size));
        if layer.hidden {
            text.push_str(", hidden");
        }
        if !layer.shared_with.is_empty() {
            let _infallible = write!(text, ", also in {}", layer.shared_with.join(", "));
        }
        line("layer", &text);
    }
    page
}

/// Words as JSON has them, so that it shows where one ends.
fn words(words: &[String]) -> String {
    match words {
        [] => String::new(),
        words => Value::from(words).to_string(),
    }
}
