//! The block lists of the settings: a reload reads them in steps, one in a turn, and the lists
//! before it stay in use until the new ones are complete.

use super::Reactor;
use crate::base::counted::counted;
use crate::block::{BlockList, Loader, Loading};
use crate::config::Config;
use crate::net::Net;

impl<N: Net> Reactor<N> {
    /// Starts to read the block lists of the settings.
    pub(super) fn start_loading(&mut self) {
        let settings = &self.config.block;
        if settings.files.is_empty() {
            self.block_loader = None;
            return self.set_block_list(None);
        }
        let key = self.proxy.new_name_table_key();
        self.block_loader = Some(Loader::new(settings, key));
    }

    /// Reads the next part of the block lists.
    pub(super) fn load_block_lists(&mut self) {
        let Some(loader) = &mut self.block_loader else {
            return;
        };
        match loader.step() {
            Ok(None) => return,
            Ok(Some(loading)) => self.use_block_lists(loading),
            Err(problem) => log::error!(
                event = "block-list-failed";
                "{problem}; keeping the previous block lists"
            ),
        }
        self.block_loader = None;
    }

    /// Reads the block lists of the settings at the start.
    ///
    /// # Errors
    ///
    /// Returns a description of the problem if a file cannot be read, or if there are too many
    /// names.
    pub fn read_block_lists(&mut self) -> Result<(), String> {
        let settings = &self.config.block;
        if settings.files.is_empty() {
            return Ok(());
        }
        let loader = Loader::new(settings, self.proxy.new_name_table_key());
        self.use_block_lists(loader.load()?);
        Ok(())
    }

    /// Uses these block lists, and logs the warnings about them.
    fn use_block_lists(&mut self, loading: Loading) {
        let Loading { list, warnings } = loading;
        for warning in warnings {
            log::warn!("{warning}");
        }
        let names = list.names();
        let text = counted(names, "name", "names");
        log::info!(event = "block-list-loaded", names = names; "block lists: {text}");
        self.set_block_list(Some(list));
    }

    fn set_block_list(&mut self, list: Option<BlockList>) {
        let before = self.settings_beside_block_lists();
        self.proxy.set_block_list(list);
        let settings = self.settings_beside_block_lists();
        if settings.cache.size != before.cache.size {
            self.proxy
                .reconfigure(&settings, self.now, &mut self.outbox);
        }
    }

    /// Returns the settings with the cache that the memory limit allows beside the block lists.
    pub(super) fn settings_beside_block_lists(&self) -> Config {
        let mut config = self.config.clone();
        let bytes = self.proxy.block_list().map_or(0, BlockList::bytes);
        config.cache.size = config.block.cache_size_beside(bytes, config.cache.size);
        config
    }
}
