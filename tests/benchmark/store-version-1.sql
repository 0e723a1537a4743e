PRAGMA application_id = 8023919;
PRAGMA user_version = 1;
BEGIN TRANSACTION;
CREATE TABLE run (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    identity TEXT NOT NULL,        -- hash of the configuration and the environment: what a resumed run must share
    config TEXT NOT NULL,          -- JSON
    environment TEXT NOT NULL,     -- JSON
    owner TEXT NOT NULL,           -- host:pid:start of the process that measures it
    started TEXT NOT NULL,
    finished TEXT
);
INSERT INTO "run" VALUES(1,'first','1bffe681b480cba2','{"name": "first", "encoders": ["resnet18"], "decoders": ["unet-basic"], "pairings": [], "baseline": {"name": "peer", "factory": "torch.nn:Identity", "options": {}}, "plugins": [], "classes": 1, "in_channels": 3, "modes": ["inference", "training"], "batch": [1], "size": [64], "dtype": ["float32"], "input": "image", "device": "auto", "rounds": 20, "warmup": 3, "seed": 0}','{"device": "cpu", "device_name": "a processor", "processor": "a processor", "cores": 2, "threads": 2, "system": "Linux x86_64", "python": "3.11.7", "versions": {"torch": "2.14.1", "segmentation-zoo": "0.1.0"}, "commit": "c959298c4d1b"}','elsewhere.example:4711:1','2026-11-25T19:38:55+00:00','2026-11-25T19:38:55+00:00');
INSERT INTO "run" VALUES(2,'first','2c8702c2f35e8a9a','{"name": "first", "encoders": ["resnet18"], "decoders": ["unet-basic"], "pairings": [], "baseline": {"name": "peer", "factory": "torch.nn:Identity", "options": {}}, "plugins": [], "classes": 1, "in_channels": 3, "modes": ["inference", "training"], "batch": [1], "size": [64], "dtype": ["float32"], "input": "image", "device": "auto", "rounds": 20, "warmup": 3, "seed": 1}','{"device": "cpu", "device_name": "a processor", "processor": "a processor", "cores": 2, "threads": 2, "system": "Linux x86_64", "python": "3.11.7", "versions": {"torch": "2.14.1", "segmentation-zoo": "0.1.0"}, "commit": "c959298c4d1b"}','elsewhere.example:4711:1','2026-11-25T19:38:55+00:00',NULL);
CREATE TABLE sample (
    run INTEGER NOT NULL,
    trial TEXT NOT NULL,
    round INTEGER NOT NULL,
    slot INTEGER NOT NULL,         -- its place in the round's order
    calls INTEGER NOT NULL,
    seconds REAL NOT NULL,         -- mean of the calls
    PRIMARY KEY (run, trial, round),
    FOREIGN KEY (run, trial) REFERENCES trial(run, key)
);
INSERT INTO "sample" VALUES(1,'8fdcd46d54c184df',0,0,1,1.0844);
INSERT INTO "sample" VALUES(1,'8801ccd483005ec4',0,1,1,2.1516);
INSERT INTO "sample" VALUES(1,'d7fb6c673493275d',0,2,1,3.1262);
INSERT INTO "sample" VALUES(1,'84b27ecefc009eb3',0,3,1,4.1036);
INSERT INTO "sample" VALUES(1,'8fdcd46d54c184df',1,0,1,1.0511);
INSERT INTO "sample" VALUES(1,'8801ccd483005ec4',1,1,1,2.081);
INSERT INTO "sample" VALUES(1,'d7fb6c673493275d',1,2,1,3.2351);
INSERT INTO "sample" VALUES(1,'84b27ecefc009eb3',1,3,1,4.1213);
INSERT INTO "sample" VALUES(1,'8fdcd46d54c184df',2,0,1,1.0477);
INSERT INTO "sample" VALUES(1,'8801ccd483005ec4',2,1,1,2.1167);
INSERT INTO "sample" VALUES(1,'d7fb6c673493275d',2,2,1,3.2724);
INSERT INTO "sample" VALUES(1,'84b27ecefc009eb3',2,3,1,4.2019);
INSERT INTO "sample" VALUES(1,'8fdcd46d54c184df',3,0,1,1.0282);
INSERT INTO "sample" VALUES(1,'8801ccd483005ec4',3,1,1,2.1512);
INSERT INTO "sample" VALUES(1,'d7fb6c673493275d',3,2,1,3.1855);
INSERT INTO "sample" VALUES(1,'84b27ecefc009eb3',3,3,1,4.1002);
INSERT INTO "sample" VALUES(1,'8fdcd46d54c184df',4,0,1,1.091);
INSERT INTO "sample" VALUES(1,'8801ccd483005ec4',4,1,1,2.1966);
INSERT INTO "sample" VALUES(1,'d7fb6c673493275d',4,2,1,3.2431);
INSERT INTO "sample" VALUES(1,'84b27ecefc009eb3',4,3,1,4.3609);
INSERT INTO "sample" VALUES(1,'8fdcd46d54c184df',5,0,1,1.031);
INSERT INTO "sample" VALUES(1,'8801ccd483005ec4',5,1,1,2.146);
INSERT INTO "sample" VALUES(1,'d7fb6c673493275d',5,2,1,3.2697);
INSERT INTO "sample" VALUES(1,'84b27ecefc009eb3',5,3,1,4.2736);
INSERT INTO "sample" VALUES(1,'8fdcd46d54c184df',6,0,1,1.0472);
INSERT INTO "sample" VALUES(1,'8801ccd483005ec4',6,1,1,2.0201);
INSERT INTO "sample" VALUES(1,'d7fb6c673493275d',6,2,1,3.1303);
INSERT INTO "sample" VALUES(1,'84b27ecefc009eb3',6,3,1,4.2444);
INSERT INTO "sample" VALUES(1,'8fdcd46d54c184df',7,0,1,1.0913);
INSERT INTO "sample" VALUES(1,'8801ccd483005ec4',7,1,1,2.1933);
INSERT INTO "sample" VALUES(1,'d7fb6c673493275d',7,2,1,3.1431);
INSERT INTO "sample" VALUES(1,'84b27ecefc009eb3',7,3,1,4.3461);
INSERT INTO "sample" VALUES(1,'8fdcd46d54c184df',8,0,1,1.026);
INSERT INTO "sample" VALUES(1,'8801ccd483005ec4',8,1,1,2.161);
INSERT INTO "sample" VALUES(1,'d7fb6c673493275d',8,2,1,3.1646);
INSERT INTO "sample" VALUES(1,'84b27ecefc009eb3',8,3,1,4.0056);
INSERT INTO "sample" VALUES(1,'8fdcd46d54c184df',9,0,1,1.072);
INSERT INTO "sample" VALUES(1,'8801ccd483005ec4',9,1,1,2.0798);
INSERT INTO "sample" VALUES(1,'d7fb6c673493275d',9,2,1,3.2475);
INSERT INTO "sample" VALUES(1,'84b27ecefc009eb3',9,3,1,4.2673);
INSERT INTO "sample" VALUES(1,'8fdcd46d54c184df',10,0,1,1.0001);
INSERT INTO "sample" VALUES(1,'8801ccd483005ec4',10,1,1,2.0987);
INSERT INTO "sample" VALUES(1,'d7fb6c673493275d',10,2,1,3.2603);
INSERT INTO "sample" VALUES(1,'84b27ecefc009eb3',10,3,1,4.0976);
INSERT INTO "sample" VALUES(1,'8fdcd46d54c184df',11,0,1,1.0325);
INSERT INTO "sample" VALUES(1,'8801ccd483005ec4',11,1,1,2.1741);
INSERT INTO "sample" VALUES(1,'d7fb6c673493275d',11,2,1,3.0573);
INSERT INTO "sample" VALUES(1,'84b27ecefc009eb3',11,3,1,4.227);
INSERT INTO "sample" VALUES(1,'8fdcd46d54c184df',12,0,1,1.0239);
INSERT INTO "sample" VALUES(1,'8801ccd483005ec4',12,1,1,2.1935);
INSERT INTO "sample" VALUES(1,'d7fb6c673493275d',12,2,1,3.241);
INSERT INTO "sample" VALUES(1,'84b27ecefc009eb3',12,3,1,4.1792);
INSERT INTO "sample" VALUES(1,'8fdcd46d54c184df',13,0,1,1.008);
INSERT INTO "sample" VALUES(1,'8801ccd483005ec4',13,1,1,2.064);
INSERT INTO "sample" VALUES(1,'d7fb6c673493275d',13,2,1,3.1524);
INSERT INTO "sample" VALUES(1,'84b27ecefc009eb3',13,3,1,4.3731);
INSERT INTO "sample" VALUES(1,'8fdcd46d54c184df',14,0,1,1.0109);
INSERT INTO "sample" VALUES(1,'8801ccd483005ec4',14,1,1,2.1103);
INSERT INTO "sample" VALUES(1,'d7fb6c673493275d',14,2,1,3.212);
INSERT INTO "sample" VALUES(1,'84b27ecefc009eb3',14,3,1,4.219);
INSERT INTO "sample" VALUES(1,'8fdcd46d54c184df',15,0,1,1.0814);
INSERT INTO "sample" VALUES(1,'8801ccd483005ec4',15,1,1,2.1081);
INSERT INTO "sample" VALUES(1,'d7fb6c673493275d',15,2,1,3.2892);
INSERT INTO "sample" VALUES(1,'84b27ecefc009eb3',15,3,1,4.2413);
INSERT INTO "sample" VALUES(1,'8fdcd46d54c184df',16,0,1,1.0588);
INSERT INTO "sample" VALUES(1,'8801ccd483005ec4',16,1,1,2.089);
INSERT INTO "sample" VALUES(1,'d7fb6c673493275d',16,2,1,3.1789);
INSERT INTO "sample" VALUES(1,'84b27ecefc009eb3',16,3,1,4.154);
INSERT INTO "sample" VALUES(1,'8fdcd46d54c184df',17,0,1,1.0576);
INSERT INTO "sample" VALUES(1,'8801ccd483005ec4',17,1,1,2.0581);
INSERT INTO "sample" VALUES(1,'d7fb6c673493275d',17,2,1,3.0568);
INSERT INTO "sample" VALUES(1,'84b27ecefc009eb3',17,3,1,4.0747);
INSERT INTO "sample" VALUES(1,'8fdcd46d54c184df',18,0,1,1.0613);
INSERT INTO "sample" VALUES(1,'8801ccd483005ec4',18,1,1,2.1313);
INSERT INTO "sample" VALUES(1,'d7fb6c673493275d',18,2,1,3.143);
INSERT INTO "sample" VALUES(1,'84b27ecefc009eb3',18,3,1,4.0359);
INSERT INTO "sample" VALUES(1,'8fdcd46d54c184df',19,0,1,1.0758);
INSERT INTO "sample" VALUES(1,'8801ccd483005ec4',19,1,1,2.1754);
INSERT INTO "sample" VALUES(1,'d7fb6c673493275d',19,2,1,3.277);
INSERT INTO "sample" VALUES(1,'84b27ecefc009eb3',19,3,1,4.337);
INSERT INTO "sample" VALUES(2,'8fdcd46d54c184df',0,0,1,1.0134);
INSERT INTO "sample" VALUES(2,'8801ccd483005ec4',0,1,1,2.1695);
INSERT INTO "sample" VALUES(2,'d7fb6c673493275d',0,2,1,3.2291);
INSERT INTO "sample" VALUES(2,'84b27ecefc009eb3',0,3,1,4.102);
INSERT INTO "sample" VALUES(2,'8fdcd46d54c184df',1,0,1,1.0495);
INSERT INTO "sample" VALUES(2,'8801ccd483005ec4',1,1,1,2.0899);
INSERT INTO "sample" VALUES(2,'d7fb6c673493275d',1,2,1,3.1955);
INSERT INTO "sample" VALUES(2,'84b27ecefc009eb3',1,3,1,4.3155);
INSERT INTO "sample" VALUES(2,'8fdcd46d54c184df',2,0,1,1.0094);
INSERT INTO "sample" VALUES(2,'8801ccd483005ec4',2,1,1,2.0057);
INSERT INTO "sample" VALUES(2,'d7fb6c673493275d',2,2,1,3.2507);
INSERT INTO "sample" VALUES(2,'84b27ecefc009eb3',2,3,1,4.1731);
CREATE TABLE trial (
    run INTEGER NOT NULL REFERENCES run(id),
    key TEXT NOT NULL,
    position INTEGER NOT NULL,
    facts TEXT NOT NULL,           -- JSON
    cost TEXT,                     -- JSON, from the static pass
    device_bytes INTEGER,          -- the accelerator's peak, where it has one
    error TEXT,
    PRIMARY KEY (run, key)
);
INSERT INTO "trial" VALUES(1,'8fdcd46d54c184df',0,'{"subject": {"reference": "peer", "factory": "torch.nn:Identity", "options": {}}, "mode": "inference", "batch": 1, "height": 64, "width": 64, "dtype": "float32", "input": "image", "classes": 1, "in_channels": 3, "is_baseline": true}','{"parameters": 1000, "flops": 1000000, "live_bytes": 1048576}',NULL,NULL);
INSERT INTO "trial" VALUES(1,'8801ccd483005ec4',1,'{"subject": {"encoder": "resnet18", "decoder": "unet-basic", "classes": 1, "in_channels": 3, "weights": null, "levels": null, "image_size": null, "adapters": "auto", "size_policy": "auto", "encoder_options": {}, "decoder_options": {}}, "mode": "inference", "batch": 1, "height": 64, "width": 64, "dtype": "float32", "input": "image", "classes": 1, "in_channels": 3, "is_baseline": false}','{"parameters": 1001, "flops": 1000000, "live_bytes": 1048576}',NULL,NULL);
INSERT INTO "trial" VALUES(1,'d7fb6c673493275d',2,'{"subject": {"reference": "peer", "factory": "torch.nn:Identity", "options": {}}, "mode": "training", "batch": 1, "height": 64, "width": 64, "dtype": "float32", "input": "image", "classes": 1, "in_channels": 3, "is_baseline": true}','{"parameters": 1002, "flops": 1000000, "live_bytes": 1048576}',NULL,NULL);
INSERT INTO "trial" VALUES(1,'84b27ecefc009eb3',3,'{"subject": {"encoder": "resnet18", "decoder": "unet-basic", "classes": 1, "in_channels": 3, "weights": null, "levels": null, "image_size": null, "adapters": "auto", "size_policy": "auto", "encoder_options": {}, "decoder_options": {}}, "mode": "training", "batch": 1, "height": 64, "width": 64, "dtype": "float32", "input": "image", "classes": 1, "in_channels": 3, "is_baseline": false}','{"parameters": 1003, "flops": 1000000, "live_bytes": 1048576}',NULL,NULL);
INSERT INTO "trial" VALUES(2,'8fdcd46d54c184df',0,'{"subject": {"reference": "peer", "factory": "torch.nn:Identity", "options": {}}, "mode": "inference", "batch": 1, "height": 64, "width": 64, "dtype": "float32", "input": "image", "classes": 1, "in_channels": 3, "is_baseline": true}','{"parameters": 1000, "flops": 1000000, "live_bytes": 1048576}',NULL,NULL);
INSERT INTO "trial" VALUES(2,'8801ccd483005ec4',1,'{"subject": {"encoder": "resnet18", "decoder": "unet-basic", "classes": 1, "in_channels": 3, "weights": null, "levels": null, "image_size": null, "adapters": "auto", "size_policy": "auto", "encoder_options": {}, "decoder_options": {}}, "mode": "inference", "batch": 1, "height": 64, "width": 64, "dtype": "float32", "input": "image", "classes": 1, "in_channels": 3, "is_baseline": false}','{"parameters": 1001, "flops": 1000000, "live_bytes": 1048576}',NULL,'ValueError: of its own');
INSERT INTO "trial" VALUES(2,'d7fb6c673493275d',2,'{"subject": {"reference": "peer", "factory": "torch.nn:Identity", "options": {}}, "mode": "training", "batch": 1, "height": 64, "width": 64, "dtype": "float32", "input": "image", "classes": 1, "in_channels": 3, "is_baseline": true}','{"parameters": 1002, "flops": 1000000, "live_bytes": 1048576}',NULL,NULL);
INSERT INTO "trial" VALUES(2,'84b27ecefc009eb3',3,'{"subject": {"encoder": "resnet18", "decoder": "unet-basic", "classes": 1, "in_channels": 3, "weights": null, "levels": null, "image_size": null, "adapters": "auto", "size_policy": "auto", "encoder_options": {}, "decoder_options": {}}, "mode": "training", "batch": 1, "height": 64, "width": 64, "dtype": "float32", "input": "image", "classes": 1, "in_channels": 3, "is_baseline": false}','{"parameters": 1003, "flops": 1000000, "live_bytes": 1048576}',NULL,'ValueError: of its own');
COMMIT;
