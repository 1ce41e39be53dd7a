//! A project meets the connectors that there are.

use std::sync::Arc;

use insta::assert_snapshot;
use schemars::JsonSchema;
use serde::Deserialize;
use trib_core::connector::{Ends, Verified};
use trib_core::{Code, Connector, ConnectorConfig, Context, Error, Result, Source};

use crate::folder::{folder, shown};

/// Says that its settings are right, and makes nothing.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "only what may stand in the settings matters")]
struct Numbers {
    host: String,
    port: u16,
}

impl ConnectorConfig for Numbers {
    const NAME: &'static str = "numbers";
    const TITLE: &'static str = "Numbers";
    const DESCRIPTION: &'static str = "For tests.";
    const VERIFIED: Verified = Verified::StandIn;

    fn source(self, _: &Context) -> Option<Result<Arc<dyn Source>>> {
        Some(Err(Error::new(Code::Unsupported, "the settings were understood").detail(self.port.to_string())))
    }
}

fn said(shop: &str, sync: &str) -> String {
    let connections = format!("warehouse: {{connector: numbers, enabled: false}}\nshop: {shop}\n");
    let folder = folder(&[("connections.yaml", &connections), ("syncs/s.yaml", sync)]);
    let project = folder.load_in(None, &[("PORT", "5432")]).unwrap_or_else(|errors| panic!("{}", shown(&errors)));
    shown(&project.validate_offline(&[Connector::of::<Numbers>(Ends::Source)]))
}

#[test]
fn connectors_and_their_settings() {
    let unused = "enabled: false\nfrom: shop";
    assert_snapshot!(said("{connector: numbrs}", unused), @r#"
    error: there is no such connector: `numbrs`
      at connections.yaml:2:1, connection shop, setting shop.connector
      hint: did you mean `numbers`?
    "#);
    assert_snapshot!(said("{connector: numbers, hots: h, port: 1}", unused), @r#"
    error: the connector has no such setting: `hots`
      at connections.yaml:2:28, connection shop, setting shop.hots
      hint: did you mean `host`?
    "#);
    assert_snapshot!(said("{connector: numbers, host: h, port: x}", unused), @r#"
    error: the value is of the wrong kind: found text, expected a whole number
      at connections.yaml:2:43, connection shop, setting shop.port
    "#);
    assert_snapshot!(said("{connector: numbers, host: 12345}", unused), @r#"
    error: the value is of the wrong kind: found a number, expected text
      at connections.yaml:2:34, connection shop, setting shop.host
    error: a setting is missing: `port`
      at connections.yaml:2:1, connection shop, setting shop.port
    "#);
    assert_snapshot!(said("{connector: numbers, host: \"${HOST}\", port: 1}", unused), @r#"
    error: a variable has no value: ${HOST}
      at connections.yaml:2:34, connection shop, setting shop.host
      hint: looked in the environment; did you mean `PORT`?
    "#);
    // A variable is text, and the connector wants a number.
    assert_snapshot!(said("{connector: numbers, host: h, port: \"${PORT}\"}", unused), @r#"
    error: the settings were understood: 5432
      at connections.yaml:2:1, connection shop
    "#);
    assert_snapshot!(said("{connector: numbers, host: h, port: 1}", "from: warehouse\nto: shop"), @r#"
    error: the connector has no such end: numbers cannot be loaded into
      at connections.yaml:2:1, connection shop
    "#);
}
